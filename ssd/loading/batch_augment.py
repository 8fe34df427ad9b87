"""Augmentation of whole batches on the training device: colour jitter, normalisation, mixup.

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

# Rec. 601 luma of RGB, the grey value that contrast and saturation refer to.
LUMA = (0.299, 0.587, 0.114)

# Number of float32 values of images that fit into the L2 CPU cache of a core together with the results.
CACHED_NUMBERS = 2**18

Channels = tuple[float, float, float]


def augment_batch(
    images: Tensor, targets: Targets, augment: AugmentParams, key: tuple[int, ...]
) -> tuple[Tensor, Targets]:
    """Colour jitter, normalisation and mixup of a batch, according to `augment.policy`.

    Args:
        images: uint8 [B, 3, H, W], RGB, on the training device.
        targets: on the same device.
        augment: the `augment` section.
        key: seed, epoch, batch, rank: they determine all randomness.

    Returns:
        float32 [B, 3, H, W], normalised, channels last; the targets, with twice the objects after mixup.
    """
    if augment.policy == "none":
        return normalise(images), targets
    if max(augment.photometric, augment.channel_shuffle) > 0:
        pixels = distort(images, augment, seeded("colour", *key))
    else:
        pixels = normalise(images)
    return mixup(pixels, targets, augment.mixup, seeded("mixup", *key))


def normalise(images: Tensor) -> Tensor:
    """Normalise RGB pixels, 0..255, by ImageNet's mean and standard deviation.

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
    """Colour jitter of a batch, drawn per image, and normalisation in the same pass.

    Brightness, contrast, saturation and hue, each with probability `augment.photometric`. Hue is a rotation
    of the chroma plane of YIQ: one 3x3 matrix per image, where HSV would need branches per pixel. Last, with
    probability `augment.channel_shuffle`, a random permutation of the channels, in the same matrix (as in
    torchvision's RandomPhotometricDistort and in PyTorch ports of SSD).

    Args:
        images: uint8 or float32 [B, 3, H, W], RGB, 0..255; fastest as uint8 in channels-last memory.
        augment: photometric, brightness, contrast, saturation, hue, channel_shuffle.
        generator: source of randomness, on the CPU.
        mean, std: of the channels, on the scale 0..255: they normalise the jittered image after it is clipped
            to 0..255.

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
    of both images have full weight in the loss (weighting their losses gains little in the paper). Images
    have one size here already, so that the blend preserves the geometry as the paper requires.

    Args:
        images: float32 [B, 3, S, S], normalised or not: a blend is the same either way.
        targets: on the same device.
        probability: of blending this batch.
        generator: source of randomness, on the CPU; there is no host-device sync.

    Returns:
        The batch, in its memory format, and targets with twice the objects (both unchanged without mixup).

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

    A CPU vectorises operations over whole rows, but not over runs of three numbers.
    """
    batch_size, _, height, width = images.shape
    return images.permute(0, 2, 3, 1).reshape(batch_size, height, width * 3)


def _blocks(images: Tensor) -> Iterator[slice]:
    """Images to process at a time: all on a GPU; on a CPU as many as stay in the CPU cache."""
    batch_size, num_channels, height, width = images.shape
    size = batch_size if images.is_cuda else max(CACHED_NUMBERS // (height * width * num_channels), 1)
    return (slice(first, first + size) for first in range(0, batch_size, max(size, 1)))


@dataclass(frozen=True)
class _Constants:
    """mean, std, low, high: constants of normalisation and clipping, one per number of a row of an image,
    float32 [3 W]; luma: float32 [3]; four: the identity, float32 [4, 4]."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    luma: Tensor
    four: Tensor


@lru_cache
def _constants(mean: Channels, std: Channels, width: int, device: torch.device) -> _Constants:
    """Cached on the device: copying them there at every step would be a host-device sync."""
    centre, scale = torch.tensor(mean), torch.tensor(std)
    rows = [value.repeat(width) for value in (centre, scale, (0 - centre) / scale, (255 - centre) / scale)]
    return _Constants(*(value.to(device) for value in (*rows, torch.tensor(LUMA), torch.eye(4))))


def _empty(shape: torch.Size, device: torch.device) -> Tensor:
    """An uninitialised float32 tensor."""
    if device.type == "cpu":
        # NumPy requests huge pages; without them the page faults of a batch take as long as its colour
        # jitter.
        return torch.from_numpy(np.empty(shape, np.float32))
    return torch.empty(shape, device=device)


def _colour_maps(
    num_images: int, augment: AugmentParams, mean: Channels, std: Channels, generator: Generator
) -> Tensor:
    """Draw one affine map per image, all in one tensor, so that one copy moves them to the device.

    float32 [B, 15]: the 3x3 matrix that rows of pixels are multiplied by, the shift, and the additional
    shift per unit of the image's mean luma; all include the normalisation.

    Contrast scales the difference of pixels from the mean grey. Before or after the others, as in the
    authors' code, it gives the same map: saturation and hue change neither grey nor the luma of a pixel, and
    brightness shifts the pixels and their mean equally.
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
    matrix = contrast[:, None, None] * (torch.linalg.inv(to_yiq) @ turn @ to_yiq)
    if augment.channel_shuffle > 0:
        # Of the rows alone: the shifts are equal for all channels before normalisation.
        matrix = _shuffled(matrix, augment.channel_shuffle, generator)
    matrix = matrix * scale[:, None]
    shift = (offset[:, None] - torch.tensor(mean)) * scale
    of_luma = (1 - contrast)[:, None] * scale
    return torch.cat([matrix.transpose(1, 2).flatten(1), shift, of_luma], dim=1)


def _shuffled(matrices: Tensor, probability: float, generator: Generator) -> Tensor:
    """Permute the rows of matrices [B, 3, 3], each with `probability`; all six orders are equally probable,
    the one that changes nothing included."""
    num_images = len(matrices)
    order = torch.rand(num_images, 3, generator=generator).argsort(1)
    chosen = torch.rand(num_images, 1, generator=generator) < probability
    order = torch.where(chosen, order, torch.arange(3))
    return matrices.take_along_dim(order[:, :, None], dim=1)


def _recolour(pixels: Tensor, maps: Tensor, constants: _Constants, out: Tensor) -> None:
    """Apply colour maps [B, 15] to float32 pixels [B, H, 3 W]; into `out`, normalised and clipped."""
    batch_size, height, row_length = pixels.shape
    num_pixels = height * row_length // 3
    sums = pixels.sum(1).view(batch_size, -1, 3).sum(1)
    luma = sums @ constants.luma / num_pixels
    matrix, shift = maps[:, :9].view(-1, 3, 3), torch.addcmul(maps[:, 9:12], maps[:, 12:], luma[:, None])
    _multiply(pixels.view(batch_size, -1, 3), matrix, constants.four, out.view(batch_size, -1, 3))
    out += shift.repeat(1, row_length // 3)[:, None]
    # Clipped after normalisation, at the normalised values of 0 and 255: one pass less.
    torch.clamp(out, constants.low, constants.high, out=out)


def _multiply(pixels: Tensor, matrix: Tensor, four: Tensor, out: Tensor) -> None:
    """pixels [B, N, 3] @ matrix [B, 3, 3] into `out` [B, N, 3].

    Four pixels at a time, by a block-diagonal matrix of four equal blocks: products of three columns take
    five times as long on a CPU.
    """
    batch_size, num_pixels, _ = pixels.shape
    end = num_pixels - num_pixels % 4
    blocks = torch.einsum("pq,bij->bpiqj", four, matrix).reshape(batch_size, 12, 12)
    fours = out[:, :end].view(batch_size, -1, 12)
    torch.bmm(pixels[:, :end].view(batch_size, -1, 12), blocks, out=fours)
    if end < num_pixels:
        out[:, end:] = pixels[:, end:] @ matrix


def _beta(size: int, generator: Generator) -> Tensor:
    """Draws from Beta(3/2, 3/2), float32 [size]: the position of a random point of a disc on a diameter."""
    radius, angle = torch.rand(2, size, generator=generator).unbind()
    return (1 + radius.sqrt() * (2 * torch.pi * angle).cos()) / 2
