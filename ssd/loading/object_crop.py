"""Crops that never lose all objects: around a chosen object, or random resized crops that keep an object.

For small data sets with small or thin objects. A crop around an object is sized by the object and not by the
image, so that small ones fill as much of the network's input as large ones. With `object_shape: free` its
aspect ratio is drawn, and objects keep their own in the network's input, on average; with `box` it is the
object's, so that thin objects come out about as wide as high. Both kinds of crop are sampled on box
coordinates, all tries at once; no pixels are read here.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from ssd.loading.view import View, full_view
from ssd.params import AugmentParams

# Minimum visible fraction, whatever the settings: the box of a cropped object must not be empty in float32.
SMALLEST_SHARE = 0.01

Boxes = NDArray[np.float32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def least_visible(augment: AugmentParams) -> float:
    """Visible fraction of their area below which objects are dropped, chosen ones included."""
    return max(augment.others_visible, SMALLEST_SHARE)


def is_kept(views: Floats, boxes: Boxes, augment: AugmentParams) -> Flags:
    """Which objects stay in which views: xyxy pixels [N, 4] and [M, 4] to bool [N, M]."""
    return visible_share(views, boxes) >= least_visible(augment)


def crop_view(
    height: int, width: int, boxes: Boxes, counted: Flags, augment: AugmentParams, generator: Generator
) -> View:
    """Sample a crop, or the whole image.

    An image with counted objects never gets a view that keeps none of them. One without any gets the whole
    image or any random resized crop.

    Args:
        height, width: of the image, pixels.
        boxes: [M, 4], xyxy, pixels, inside the image.
        counted: bool [M], which of them are not ignored: they may be chosen and must not all be lost.
        augment: object_crop, resized_crop, and object_min to crop_tries.
        generator: source of all randomness; the number of draws depends on `augment` alone.

    Returns:
        A view of whole pixels inside the image, not flipped.
    """
    draws = torch.rand(augment.crop_tries + 1, 4, generator=generator, dtype=torch.float64).numpy()
    kind, choice = draws[0, :2].tolist()
    resized = augment.object_crop <= kind < augment.object_crop + augment.resized_crop
    targets = boxes[counted]
    if resized:
        crops = _resized_crops(height, width, augment, draws[1:])
        nothing_to_lose = np.full(len(crops), len(targets) == 0)
        good = nothing_to_lose | is_kept(crops, targets, augment).any(axis=1)
    elif kind < augment.object_crop and len(targets):
        target = targets[choose(targets, choice)]
        crops = _crops_around(target, height, width, augment, draws[1:])
        least = max(augment.target_visible, least_visible(augment))
        good = visible_share(crops, target[None])[:, 0] >= least
    else:
        return full_view(height, width)
    return View(*crops[good][0].tolist()) if good.any() else full_view(height, width)


def visible_share(views: Floats, boxes: Boxes) -> Floats:
    """Fraction of the area of boxes inside views, 0..1; xyxy pixels [N, 4] and [M, 4] to [N, M]."""
    x1, y1, x2, y2 = views.T[:, :, None]
    # In float64, in which a box inside a view has a fraction of exactly 1.
    left, top, right, bottom = boxes.T.astype(np.float64)
    across = (np.minimum(x2, right) - np.maximum(x1, left)).clip(0)
    down = (np.minimum(y2, bottom) - np.maximum(y1, top)).clip(0)
    share: Floats = across * down / ((right - left) * (bottom - top))
    return share


def choose(boxes: Boxes, draw: float) -> int:
    """The row of the object that a uniform draw from 0..1 selects; larger objects are more probable.

    Probabilities are proportional to the square root of the area. Proportional to the area, an object three
    times as wide and high would be nine times as frequent, and small ones, which the crops are for, too rare.
    """
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    ends = np.sqrt(width * height, dtype=np.float64).cumsum()
    return min(int(ends.searchsorted(draw * ends[-1], side="right")), len(boxes) - 1)


def side_limits(height: int, width: int, augment: AugmentParams) -> tuple[float, float]:
    """Square roots of the smallest and the largest area of a crop, pixels.

    The first exceeds the second where no crop of an allowed aspect ratio reaches the minimum area.
    """
    area = height * width
    largest = min(area, augment.crop_ratio * min(height, width) ** 2)
    return (augment.crop_area * area) ** 0.5, largest**0.5


def _resized_crops(height: int, width: int, augment: AugmentParams, draws: Floats) -> Floats:
    """Crops anywhere in the image: draws [N, 4] to xyxy [K, 4], pixels, of those that are inside it.

    As torchvision's RandomResizedCrop: the area is uniform from `crop_area`, the aspect ratio log-uniform up
    to `crop_ratio` or its inverse, both drawn again where they do not fit into the image together. (After
    the last try torchvision takes a crop in the middle, and the caller the whole image.)
    """
    smallest, largest = side_limits(height, width, augment)
    # No crop above the largest area fits; drawn from below it, fewer tries are lost.
    sides = np.sqrt(smallest**2 + draws[:, 0] * (largest**2 - smallest**2))
    root = augment.crop_ratio ** (draws[:, 1] - 0.5)
    size = np.stack([sides * root, sides / root], axis=1).round()
    inside = (smallest <= largest) & (size >= 1).all(axis=1) & (size <= (width, height)).all(axis=1)
    size, draws = size[inside], draws[inside]
    corner = _between(np.zeros(2), np.array([width, height]) - size, draws[:, 2:])
    return np.concatenate([corner, corner + size], axis=1)


def _crops_around(target: Boxes, height: int, width: int, augment: AugmentParams, draws: Floats) -> Floats:
    """Crops sized by an object, placed where enough of it may be visible; draws [N, 4] to xyxy [N or 0, 4].

    The visible fractions of the object's width and height each suffice; the caller checks their product.
    """
    start, end = target.reshape(2, 2).astype(np.float64)
    if augment.object_shape == "box":
        size = _box_sizes(end - start, height, width, augment, draws[:, 0])
    else:
        size = _free_sizes((end - start).max(), height, width, augment, draws[:, :2])
    needed = (end - start) * augment.target_visible
    first = np.maximum(start + needed - size, 0)
    last = np.minimum(end - needed, np.array([width, height]) - size)
    corner = _between(first, last, draws[: len(size), 2:])
    return np.concatenate([corner, corner + size], axis=1)


def _box_sizes(box: Floats, height: int, width: int, augment: AugmentParams, draws: Floats) -> Floats:
    """Widths and heights [N, 2], whole pixels: a multiple of those of `box`, clipped to those of the image.

    The multiple is log-uniform from `object_min` to `object_max`; `crop_area` and `crop_ratio` are not used.
    """
    multiples = augment.object_min * (augment.object_max / augment.object_min) ** draws
    return (multiples[:, None] * box).round().clip(1, (width, height))


def _free_sizes(side: float, height: int, width: int, augment: AugmentParams, draws: Floats) -> Floats:
    """Widths and heights [N, 2], whole pixels, of crops with the area of squares of a multiple of `side`.

    The multiple is log-uniform from `object_min` to `object_max`, within the areas that are allowed. The
    aspect ratio is log-uniform over those of at most `crop_ratio` that fit into the image. N is 0 where no
    crop of an allowed aspect ratio reaches the minimum area.
    """
    smallest, largest = side_limits(height, width, augment)
    if smallest > largest:
        return np.zeros((0, 2))
    low, high = (
        min(max(multiple * side, smallest), largest) for multiple in (augment.object_min, augment.object_max)
    )
    sides = low * (high / low) ** draws[:, 0]
    narrowest = np.maximum(1 / augment.crop_ratio, (sides / height) ** 2)
    widest = np.minimum(augment.crop_ratio, (width / sides) ** 2)
    root = np.sqrt(narrowest * (widest / narrowest) ** draws[:, 1])
    return np.stack([sides * root, sides / root], axis=1).round().clip(1, (width, height))


def _between(first: Floats, last: Floats, draws: Floats) -> Floats:
    """Integers drawn from `first` to `last`; where there is none, one between the rounded two."""
    first, last = np.ceil(first), np.floor(last)
    return first + np.floor(draws * (last - first + 1))
