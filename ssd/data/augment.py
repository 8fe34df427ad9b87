"""SSD's augmentation: geometry sampled on boxes, photometric distortion on the batch (SSD, section 2.2)."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ssd.boxes import pairwise_iou
from ssd.data.geometry import View, whole

# The paper's seven choices of a crop: the original image, five least overlaps, any crop.
MIN_IOUS: tuple[float | None, ...] = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
CROP_TRIES = 50

# Rec. 601 luma of RGB, what a grey image of contrast and saturation means.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Geometry:
    """Probabilities of the geometric augmentations, and the largest zoom-out (times the side)."""

    flip: float
    zoom_out: float
    zoom_max: float
    crop: float


@dataclass(frozen=True)
class Photometry:
    """Probability of each distortion and their largest strengths (see params.yaml: augment)."""

    probability: float
    brightness: float
    contrast: float
    saturation: float
    hue: float


def sample_view(height: int, width: int, boxes: Tensor, geometry: Geometry, generator: Generator) -> View:
    """Sample what part of an image the network sees.

    Zoom-out, then IoU crop, then flip, as in the authors' code; no pixel is touched here. A view has
    whole pixels, so that the pixels that are cut out and the boxes follow the same edges.

    Args:
        height, width: of the image, pixels.
        boxes: float32 [m, 4] xyxy pixels.
        geometry: probabilities.
        generator: source of all randomness.
    """
    view = whole(height, width)
    if _chance(geometry.zoom_out, generator):
        view = _zoom_out(height, width, geometry.zoom_max, generator)
    if len(boxes) and _chance(geometry.crop, generator):
        view = _iou_crop(view, boxes, generator)
    return View(view.x1, view.y1, view.x2, view.y2, flip=_chance(geometry.flip, generator))


def visible_objects(boxes: Tensor, view: View) -> Tensor:
    """Which objects stay: those whose centre is in the view (SSD, section 2.2); bool [m]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = boxes.new_tensor([view.x1, view.y1]), boxes.new_tensor([view.x2, view.y2])
    return ((centre >= low) & (centre < high)).all(-1)


def _zoom_out(height: int, width: int, largest: float, generator: Generator) -> View:
    ratio = _uniform(1, largest, generator)
    x1 = -round(_uniform(0, width * (ratio - 1), generator))
    y1 = -round(_uniform(0, height * (ratio - 1), generator))
    return View(x1, y1, x1 + round(width * ratio), y1 + round(height * ratio))


def _iou_crop(view: View, boxes: Tensor, generator: Generator) -> View:
    """A crop of 0.3 to 1 of each side, aspect ratio 0.5 to 2, that overlaps an object enough."""
    choice = int(torch.randint(len(MIN_IOUS), (), generator=generator))
    min_iou = MIN_IOUS[choice]
    if min_iou is None:
        return view
    width, height = view.x2 - view.x1, view.y2 - view.y1
    # All tries at once: one small tensor instead of fifty rounds of Python.
    tries = torch.rand(CROP_TRIES, 4, generator=generator)
    crop_size = (0.3 + 0.7 * tries[:, :2]) * torch.tensor([width, height])
    corner = tries[:, 2:] * (torch.tensor([width, height]) - crop_size) + torch.tensor([view.x1, view.y1])
    crops = torch.cat([corner, corner + crop_size], dim=1).round()
    ratio = (crops[:, 2] - crops[:, 0]) / (crops[:, 3] - crops[:, 1])
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    holds = ((centre >= crops[:, None, :2]) & (centre < crops[:, None, 2:])).all(-1)
    overlaps = (pairwise_iou(crops, boxes) >= min_iou) & holds
    good = ((ratio >= 0.5) & (ratio <= 2) & overlaps.any(1)).nonzero()
    if len(good) == 0:
        return view
    return View(*crops[int(good[0])].tolist())


def distort(images: Tensor, photometry: Photometry, generator: Generator) -> Tensor:
    """Photometric distortion of a batch, each image by its own draw.

    Brightness, contrast, saturation and hue, each with the given probability; contrast comes before or
    after the others, as in the authors' code. Hue is a turn in the chroma plane of YIQ: one 3x3
    matrix an image, where HSV would need branches a pixel.

    Args:
        images: float32 [B, 3, H, W], 0..255.
        photometry: strengths.
        generator: source of randomness, on the CPU.

    Returns:
        float32 [B, 3, H, W], clipped to 0..255.
    """
    if photometry.probability == 0:
        return images
    maps = _colour_maps(len(images), photometry, generator)
    if images.is_cuda:
        maps = maps.pin_memory()
    maps = maps.to(images.device, non_blocking=True)
    matrix, luma = maps[:, :9].view(-1, 3, 3), maps[0, 12:]
    offset, contrast, contrast_first = maps[:, 9], maps[:, 10], maps[:, 11] > 0
    # Contrast pulls towards the mean grey; done first or last it is still one affine map a pixel, so
    # the whole distortion is a 3x3 matrix and a shift.
    mean_grey = images.mean(dim=(2, 3)) @ luma
    grey_after = (matrix @ images.mean(dim=(2, 3))[..., None]).squeeze(-1) @ luma + offset
    pivot = torch.where(contrast_first, mean_grey, grey_after)
    shift = (1 - contrast) * pivot
    before = (matrix.sum(-1) * shift[:, None]) + offset[:, None]
    after = (contrast * offset + shift)[:, None].expand(-1, 3)
    shift = torch.where(contrast_first[:, None], before, after)
    matrix = matrix * contrast[:, None, None]
    flat = torch.baddbmm(shift[..., None], matrix, images.flatten(2))
    return flat.clamp_(0, 255).view_as(images)


def _colour_maps(num_images: int, photometry: Photometry, generator: Generator) -> Tensor:
    """All draws in one tensor, so that one copy brings them to the device: float32 [B, 15].

    Columns: the 3x3 matrix of saturation and hue, brightness shift, contrast factor, whether contrast
    comes first, and the three weights of luma.
    """

    def draw(strength: float) -> Tensor:
        value = (torch.rand(num_images, generator=generator) * 2 - 1) * strength
        return value * (torch.rand(num_images, generator=generator) < photometry.probability)

    offset = draw(photometry.brightness) * 255
    contrast, saturation = 1 + draw(photometry.contrast), 1 + draw(photometry.saturation)
    angle = draw(photometry.hue) * 2 * torch.pi
    contrast_first = torch.rand(num_images, generator=generator) < 0.5
    to_yiq = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    turn = torch.zeros(num_images, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * angle.cos()
    turn[:, 2, 1] = saturation * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    luma = to_yiq[0].expand(num_images, -1)
    scalars = torch.stack([offset, contrast, contrast_first.float()], dim=1)
    return torch.cat([matrix.flatten(1), scalars, luma], dim=1)


def _chance(probability: float, generator: Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def _uniform(low: float, high: float, generator: Generator) -> float:
    return float(torch.rand((), generator=generator)) * (high - low) + low
