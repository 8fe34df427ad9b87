"""What is done to a whole batch on the device that trains: colour jitter, normalisation, mixup.

Colour jitter is the photometric distortion of SSD (Liu et al., ECCV 2016, section 2.2, and the authors'
code).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor

from ssd.params import AugmentParams
from ssd.seeding import seeded
from ssd.structures import MEAN, STD, Targets

# Rec. 601 luma of RGB, what a grey image of contrast and saturation means.
LUMA = (0.299, 0.587, 0.114)

# How many float32 numbers of images a CPU core's second-level cache holds besides what comes of them.
CACHED_NUMBERS = 2**18

Channels = tuple[float, float, float]


def augment_batch(
    images: Tensor, targets: Targets, augment: AugmentParams, key: tuple[int, ...]
) -> tuple[Tensor, Targets]:
    """Colour jitter, normalisation and mixup of a batch, as `augment.policy` asks.

    Args:
        images: uint8 [B, 3, H, W], RGB, on the device that trains.
        targets: on the same device.
        augment: the section.
        key: seed, epoch, batch, rank: they decide all randomness.

    Returns:
        float32 [B, 3, H, W], normalised, channels last; the targets, with twice the rows after mixup.
    """
    if augment.policy == "none":
        return normalise(images), targets
    if augment.photometric > 0:
        pixels = distort(images, augment, seeded("colour", *key))
    else:
        pixels = normalise(images)
    return mixup(pixels, targets, augment.mixup, seeded("mixup", *key))


def normalise(images: Tensor) -> Tensor:
    """Pixels 0..255, RGB, to ImageNet's mean 0 and standard deviation 1.

    Args:
        images: uint8 or float32 [B, 3, H, W]; fastest as uint8 in channels-last memory.

    Returns:
        float32 [B, 3, H, W], channels last.
    """
    batch_size, _, height, width = images.shape
    pixels = _rows_of_numbers(images)
    out = _empty(pixels.shape, images.device)
    constants = _constants(MEAN, STD, width, images.device)
    for rows in _blocks(images):
        torch.sub(pixels[rows].float(), constants.mean, out=out[rows]).div_(constants.std)
    return out.view(batch_size, height, width, 3).permute(0, 3, 1, 2)


def distort(
    images: Tensor, augment: AugmentParams, generator: Generator, mean: Channels = MEAN, std: Channels = STD
) -> Tensor:
    """Colour jitter of a batch, each image by its own draw, and normalisation in the same pass.

    Brightness, contrast, saturation and hue, each with probability `augment.photometric`. Hue is a rotation
    of the chroma plane of YIQ: one 3x3 matrix per image, where HSV would need branches per pixel.

    Args:
        images: uint8 or float32 [B, 3, H, W], RGB, 0..255; fastest as uint8 in channels-last memory.
        augment: photometric, brightness, contrast, saturation, hue.
        generator: source of randomness, on the CPU.
        mean, std: of the channels, 0..255: what is subtracted from the distorted image, clipped to 0..255,
            and what it is divided by then.

    Returns:
        float32 [B, 3, H, W], channels last.
    """
    batch_size, _, height, width = images.shape
    pixels = _rows_of_numbers(images)
    out = _empty(pixels.shape, images.device)
    constants = _constants(mean, std, width, images.device)
    maps = _colour_maps(batch_size, augment, mean, std, generator)
    maps = (maps.pin_memory() if images.is_cuda else maps).to(images.device, non_blocking=True)
    for rows in _blocks(images):
        _recolour(pixels[rows].float(), maps[rows], constants, out[rows])
    return out.view(batch_size, height, width, 3).permute(0, 3, 1, 2)


def mixup(
    images: Tensor, targets: Targets, probability: float, generator: Generator
) -> tuple[Tensor, Targets]:
    """Blend each image of a batch with the one before it (the first with the last), all or none.

    The weights are drawn per image from Beta(1.5, 1.5), the paper's choice: mostly near one half. Objects
    of both images count in full (the paper may also weight their losses, which gains it little). Images are
    already of one size here, so that the blend keeps the geometry as the paper asks.

    Args:
        images: float32 [B, 3, S, S], normalised or not: a blend is the same either way.
        targets: on the same device.
        probability: of blending this batch.
        generator: source of randomness, on the CPU; the device is not waited for.

    Returns:
        The batch, in the memory format it came in, and targets with twice the rows (or both as they came).

    Source: Zhang et al., "Bag of Freebies for Training Object Detection Neural Networks" (2019), section 3.1.
    """
    if torch.rand((), generator=generator) >= probability:
        return images, targets
    weights = _beta(len(images), generator).view(-1, 1, 1, 1)
    weights = (weights.pin_memory() if images.is_cuda else weights).to(images.device, non_blocking=True)
    mixed = torch.empty_like(images)
    torch.lerp(images[-1:], images[:1], weights[:1], out=mixed[:1])
    torch.lerp(images[:-1], images[1:], weights[1:], out=mixed[1:])
    rows = (targets.boxes, targets.labels, targets.ignored)
    return mixed, Targets(*(torch.cat([own, own.roll(1, 0)], dim=1) for own in rows))


def _rows_of_numbers(images: Tensor) -> Tensor:
    """[B, 3, H, W] to [B, H, W * 3], a view where memory is channels last.

    A CPU's vector units have no use for runs of three numbers, but for those of a whole row.
    """
    batch_size, _, height, width = images.shape
    return images.permute(0, 2, 3, 1).reshape(batch_size, height, width * 3)


def _blocks(images: Tensor) -> Iterator[slice]:
    """Images at a time: all on a GPU; on a CPU a few, which its cache still holds at the next step."""
    batch_size, num_channels, height, width = images.shape
    size = batch_size if images.is_cuda else max(CACHED_NUMBERS // (height * width * num_channels), 1)
    return (slice(first, first + size) for first in range(0, batch_size, max(size, 1)))


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
    num_images: int, augment: AugmentParams, mean: Channels, std: Channels, generator: Generator
) -> Tensor:
    """Draw one affine map per image, all in one tensor, so that one copy brings them to the device.

    float32 [B, 15]: the 3x3 matrix that rows of pixels are multiplied by, the shift, and how much more
    shift there is for each unit of the image's mean luma; all with the normalisation in them.

    Contrast pulls pixels towards the mean grey. It may come before or after the others, as in the authors'
    code, and the map is the same: saturation and hue change neither grey nor the luma of a pixel, and
    brightness moves the pixels and their mean alike.
    """

    def draw(strength: float) -> Tensor:
        value = (torch.rand(num_images, generator=generator) * 2 - 1) * strength
        return value * (torch.rand(num_images, generator=generator) < augment.photometric)

    offset = draw(augment.brightness) * 255
    contrast, saturation = 1 + draw(augment.contrast), 1 + draw(augment.saturation)
    angle = draw(augment.hue) * 2 * torch.pi
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


def _beta(size: int, generator: Generator) -> Tensor:
    """Draws from Beta(3/2, 3/2), float32 [size]: where a random point of a disc lies across its diameter."""
    radius, angle = torch.rand(2, size, generator=generator).unbind()
    return (1 + radius.sqrt() * (2 * torch.pi * angle).cos()) / 2
