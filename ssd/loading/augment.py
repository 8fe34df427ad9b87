"""Augmentation: geometry sampled on boxes, photometric distortion on the batch (SSD, section 2.2).

Crops around objects, which SSD does not have, are in ssd/loading/object_crop.py.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from ssd.loading.object_crop import ObjectCrop, crop_view
from ssd.loading.tensor_file import Objects
from ssd.loading.view import View, map_boxes, whole

# The paper's seven choices of a crop: the original image, five least overlaps, any crop.
MIN_IOUS: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
CROP_TRIES = 50

# Rec. 601 luma of RGB, what a grey image of contrast and saturation means.
LUMA = (0.299, 0.587, 0.114)

# How many float32 numbers of images a CPU core's second-level cache holds besides what comes of them.
CACHED_NUMBERS = 2**18

Array = NDArray[np.float32]
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Geometry:
    """Probabilities of the geometric augmentations, and the largest zoom-out (times the side).

    mosaic: of four images in one, each with a view of its own. object_crop: crops around objects; they take
    the place of zoom-out and IoU crop, which must be 0 then, and objects stay by how much of them is in view.
    """

    flip: float
    zoom_out: float
    zoom_max: float
    crop: float
    mosaic: float = 0.0
    object_crop: ObjectCrop | None = None

    def __post_init__(self) -> None:
        assert self.object_crop is None or self.zoom_out == self.crop == 0, "one kind of crop"


@dataclass(frozen=True)
class Photometry:
    """Probability of each distortion and their largest strengths (see params.yaml: augment)."""

    probability: float
    brightness: float
    contrast: float
    saturation: float
    hue: float


def sample_view(
    height: int,
    width: int,
    boxes: Tensor,
    geometry: Geometry,
    generator: Generator,
    ignored: Tensor | None = None,
) -> View:
    """Sample what part of an image the network sees.

    Zoom-out, then IoU crop, then flip, as in the authors' code, or crops around objects, then flip; no pixel
    is touched here. A view has whole pixels, so that the pixels that are cut out and the boxes follow the
    same edges.

    Args:
        height, width: of the image, pixels.
        boxes: float32 [m, 4] xyxy pixels.
        geometry: probabilities; `mosaic` is not for here.
        generator: source of all randomness.
        ignored: bool [m], objects that a crop around an object neither chooses nor has to keep; None: there
            are none. SSD's crops do not ask.
    """
    # One call for all draws: that of torch costs more than the arithmetic here.
    zooms, ratio, across, down, crops, choice, flips = torch.rand(7, generator=generator).tolist()
    view = whole(height, width)
    if zooms < geometry.zoom_out:
        ratio = 1 + ratio * (geometry.zoom_max - 1)
        x1 = -round(across * width * (ratio - 1))
        y1 = -round(down * height * (ratio - 1))
        view = View(x1, y1, x1 + round(width * ratio), y1 + round(height * ratio))
    min_iou = MIN_IOUS[int(choice * len(MIN_IOUS))]
    if crops < geometry.crop and min_iou is not None and len(boxes):
        view = _iou_crop(view, boxes.numpy(), min_iou, generator)
    if geometry.object_crop is not None:
        counted = np.ones(len(boxes), np.bool_) if ignored is None else ~ignored.numpy()
        view = crop_view(height, width, boxes.numpy(), counted, geometry.object_crop, generator)
    return replace(view, flip=flips < geometry.flip)


def visible_objects(boxes: Tensor, view: View) -> Tensor:
    """Which objects stay: those whose centre is in the view (SSD, section 2.2); bool [m]."""
    return torch.from_numpy(_holds(_edges(view), boxes.numpy())[0])


def seen(objects: Objects, view: View, geometry: Geometry | None = None) -> Objects:
    """The objects that stay in a view, boxes in shares of it.

    They stay by their centre (SSD, section 2.2) or, where the geometry has crops around objects, by how much
    of them is in view.
    """
    if geometry is None or geometry.object_crop is None:
        kept = visible_objects(objects.boxes, view)
    else:
        kept = torch.from_numpy(geometry.object_crop.keeps(_edges(view), objects.boxes.numpy())[0])
    if not kept.all():
        objects = Objects(objects.boxes[kept], objects.labels[kept], objects.ignored[kept])
    return replace(objects, boxes=map_boxes(objects.boxes, view))


def _edges(view: View) -> NDArray[np.float64]:
    """A view as xyxy [1, 4]."""
    return np.array([[view.x1, view.y1, view.x2, view.y2]], np.float64)


def _iou_crop(view: View, boxes: Array, min_iou: float, generator: Generator) -> View:
    """A crop of 0.3 to 1 of each side, aspect ratio 0.5 to 2, that overlaps an object enough."""
    # All tries at once: numpy, for torch takes thrice the time on so few numbers.
    tries = torch.rand(CROP_TRIES, 4, generator=generator).numpy()
    size = np.array([view.x2 - view.x1, view.y2 - view.y1], np.float32)
    crop_size = (0.3 + 0.7 * tries[:, :2]) * size
    corner = tries[:, 2:] * (size - crop_size) + np.array([view.x1, view.y1], np.float32)
    crops = np.concatenate([corner, corner + crop_size], axis=1).round()
    width, height = (crops[:, 2:] - crops[:, :2]).T
    shaped = (width <= 2 * height) & (height <= 2 * width)
    good = shaped & ((_iou(crops, boxes) >= min_iou) & _holds(crops, boxes)).any(axis=1)
    first = int(good.argmax())
    return View(*crops[first].tolist()) if good[first] else view


def _holds(views: Array | NDArray[np.float64], boxes: Array) -> NDArray[np.bool_]:
    """Whether views hold the centres of boxes; xyxy [n, 4] and [m, 4] to bool [n, m]."""
    x1, y1, x2, y2 = views.T[:, :, None]
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    held: NDArray[np.bool_] = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
    return held


def _iou(crops: Array, boxes: Array) -> Array:
    """As `pairwise_iou` of ssd.boxes, where no pair is empty; xyxy [n, 4] and [m, 4] to [n, m]."""
    ax1, ay1, ax2, ay2 = crops.T[:, :, None]
    bx1, by1, bx2, by2 = boxes.T
    width = (np.minimum(ax2, bx2) - np.maximum(ax1, bx1)).clip(0)
    height = (np.minimum(ay2, by2) - np.maximum(ay1, by1)).clip(0)
    intersection = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    iou: Array = intersection / union
    return iou


def distort(
    images: Tensor,
    photometry: Photometry,
    generator: Generator,
    mean: Channels = (0.0, 0.0, 0.0),
    std: Channels = (1.0, 1.0, 1.0),
) -> Tensor:
    """Photometric distortion of a batch, each image by its own draw, and normalisation in the same pass.

    Brightness, contrast, saturation and hue, each with the given probability. Hue is a turn in the chroma
    plane of YIQ: one 3x3 matrix an image, where HSV would need branches a pixel.

    Args:
        images: uint8 or float32 [B, 3, H, W], 0..255; fastest as uint8 in channels-last memory.
        photometry: strengths.
        generator: source of randomness, on the CPU.
        mean, std: of the channels, 0..255; what is subtracted from the distorted image, clipped to
            0..255, and what it is divided by then.

    Returns:
        float32 [B, 3, H, W], channels last.
    """
    batch_size, _, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(batch_size, height, width * 3)
    out = _empty(pixels.shape, images.device)
    constants = _constants(mean, std, width, images.device)
    maps: Tensor | None = None
    if photometry.probability > 0:
        maps = _colour_maps(batch_size, photometry, mean, std, generator)
        maps = (maps.pin_memory() if images.is_cuda else maps).to(images.device, non_blocking=True)
    # A GPU takes all images at once; a CPU a few at a time, which its cache still holds at the next step.
    step = batch_size if images.is_cuda else max(CACHED_NUMBERS // (height * width * 3), 1)
    for first in range(0, batch_size, step):
        rows = slice(first, first + step)
        if maps is None:
            torch.sub(pixels[rows].float(), constants.mean, out=out[rows]).div_(constants.std)
        else:
            _recolour(pixels[rows].float(), maps[rows], constants, out[rows])
    return out.view(batch_size, height, width, 3).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Constants:
    """mean, std, low, high: what pixels are normalised by and clipped to, for each number of a row of an
    image, float32 [3 W]; luma: float32 [3]; four: the identity, float32 [4, 4]."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    luma: Tensor
    four: Tensor


@lru_cache
def _constants(mean: Channels, std: Channels, width: int, device: torch.device) -> _Constants:
    """Kept on the device: copying them there at every step would stall a GPU's queue."""
    centre, scale = torch.tensor(mean), torch.tensor(std)
    rows = [value.repeat(width) for value in (centre, scale, (0 - centre) / scale, (255 - centre) / scale)]
    return _Constants(*(value.to(device) for value in (*rows, torch.tensor(LUMA), torch.eye(4))))


def _empty(shape: torch.Size, device: torch.device) -> Tensor:
    """A float32 tensor with no values yet."""
    if device.type == "cpu":
        # Numpy asks for huge pages; without them the first touch of a batch takes as long as its colours.
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, device=device)


def _colour_maps(
    num_images: int, photometry: Photometry, mean: Channels, std: Channels, generator: Generator
) -> Tensor:
    """Draw one affine map an image, all in one tensor, so that one copy brings them to the device.

    float32 [B, 15]: the 3x3 matrix that rows of pixels are multiplied by, the shift, and how much more
    shift there is for each unit of the image's mean luma; all with the normalisation in them.

    Contrast pulls pixels towards the mean grey. It may come before or after the others, as in the authors'
    code, and the map is the same: saturation and hue change neither grey nor the luma of a pixel, and
    brightness moves the pixels and their mean alike.
    """

    def draw(strength: float) -> Tensor:
        value = (torch.rand(num_images, generator=generator) * 2 - 1) * strength
        return value * (torch.rand(num_images, generator=generator) < photometry.probability)

    offset = draw(photometry.brightness) * 255
    contrast, saturation = 1 + draw(photometry.contrast), 1 + draw(photometry.saturation)
    angle = draw(photometry.hue) * 2 * torch.pi
    to_yiq = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    turn = torch.zeros(num_images, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * angle.cos()
    turn[:, 2, 1] = saturation * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    scale = 1 / torch.tensor(std)
    matrix = contrast[:, None, None] * (torch.linalg.inv(to_yiq) @ turn @ to_yiq) * scale[:, None]
    shift = (offset[:, None] - torch.tensor(mean)) * scale
    of_luma = (1 - contrast)[:, None] * scale
    return torch.cat([matrix.transpose(1, 2).flatten(1), shift, of_luma], dim=1)


def _recolour(pixels: Tensor, maps: Tensor, constants: _Constants, out: Tensor) -> None:
    """Apply colour maps [B, 15] to float32 pixels [B, H, 3 W]; into `out`, normalised and clipped."""
    batch_size, height, row_length = pixels.shape
    num_pixels = height * row_length // 3
    sums = pixels.sum(1).view(batch_size, -1, 3).sum(1)
    luma = sums @ constants.luma / num_pixels
    matrix, shift = maps[:, :9].view(-1, 3, 3), torch.addcmul(maps[:, 9:12], maps[:, 12:], luma[:, None])
    _multiply(pixels.view(batch_size, -1, 3), matrix, constants.four, out.view(batch_size, -1, 3))
    out += shift.repeat(1, row_length // 3)[:, None]
    # Clipped after normalisation, at what 0 and 255 have become: a pass less.
    torch.clamp(out, constants.low, constants.high, out=out)


def _multiply(pixels: Tensor, matrix: Tensor, four: Tensor, out: Tensor) -> None:
    """pixels [B, N, 3] @ matrix [B, 3, 3] into `out` [B, N, 3].

    Four pixels at a time, by four equal blocks on a diagonal: products of three columns take five times
    as long on a CPU.
    """
    batch_size, num_pixels, _ = pixels.shape
    end = num_pixels - num_pixels % 4
    blocks = torch.einsum("pq,bij->bpiqj", four, matrix).reshape(batch_size, 12, 12)
    fours = out[:, :end].view(batch_size, -1, 12)
    torch.bmm(pixels[:, :end].view(batch_size, -1, 12), blocks, out=fours)
    if end < num_pixels:
        out[:, end:] = pixels[:, end:] @ matrix
