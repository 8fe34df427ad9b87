"""Crops that never lose all objects: around a chosen object, or anywhere as long as an object stays.

For small data sets with small or thin objects. A crop around an object is sized by the object and not by the
image, so that small ones fill as much of the network's input as large ones. Both kinds of crop are sampled
on box coordinates, all tries at once; no pixel is touched here.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from ssd.loading.view import View, whole

# What is left of an object must have a size that float32 can tell from nothing, whatever the settings.
SMALLEST_SHARE = 0.01

Boxes = NDArray[np.float32]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class ObjectCrop:
    """Settings of the crops (params.yaml: augment).

    probability: of a crop around an object; resized: of a random resized crop; the rest is the whole image.
    min_multiple, max_multiple: side of a crop around an object, times the object's longer side.
    min_area: of a crop, share of the image; max_ratio: of its longer side to the shorter.
    target_visible, others_visible: least share of its area that keeps the chosen object, and any object.
    tries: crops that are tried for an image, then the whole image is taken.
    """

    probability: float
    resized: float
    min_multiple: float
    max_multiple: float
    min_area: float
    max_ratio: float
    target_visible: float
    others_visible: float
    tries: int

    @property
    def least_visible(self) -> float:
        """Objects of which less is in view are dropped, chosen ones, too."""
        return max(self.others_visible, SMALLEST_SHARE)

    def keeps(self, views: Floats, boxes: Boxes) -> Flags:
        """Which objects stay in which views; xyxy pixels [n, 4] and [m, 4] to bool [n, m]."""
        return visible_share(views, boxes) >= self.least_visible


def crop_view(
    height: int, width: int, boxes: Boxes, counted: Flags, settings: ObjectCrop, generator: Generator
) -> View:
    """Sample a crop, or the whole image.

    An image with counted objects never gets a view that keeps none of them. One without any gets the whole
    image or any random resized crop.

    Args:
        height, width: of the image, pixels.
        boxes: [m, 4] xyxy pixels, inside the image.
        counted: bool [m], which of them may be chosen and must not all be lost: those that are not ignored.
        settings: see there.
        generator: source of all randomness; the number of draws depends on `settings` alone.

    Returns:
        A view of whole pixels inside the image, not flipped.
    """
    draws = torch.rand(settings.tries + 1, 4, generator=generator, dtype=torch.float64).numpy()
    kind, choice = draws[0, :2].tolist()
    smallest, largest = side_limits(height, width, settings)
    resized = settings.probability <= kind < settings.probability + settings.resized
    targets = boxes[counted]
    if smallest > largest or not (resized or (kind < settings.probability and len(targets))):
        return whole(height, width)
    if resized:
        crops = _resized_crops(height, width, smallest, largest, settings, draws[1:])
        nothing_to_lose = np.full(len(crops), len(targets) == 0)
        good = nothing_to_lose | settings.keeps(crops, targets).any(axis=1)
    else:
        target = targets[choose(targets, choice)]
        crops = _crops_around(target, height, width, smallest, largest, settings, draws[1:])
        least = max(settings.target_visible, settings.least_visible)
        good = visible_share(crops, target[None])[:, 0] >= least
    first = int(good.argmax())
    return View(*crops[first].tolist()) if good[first] else whole(height, width)


def visible_share(views: Floats, boxes: Boxes) -> Floats:
    """How much of the area of boxes is in views; xyxy pixels [n, 4] and [m, 4] to [n, m], 0..1."""
    x1, y1, x2, y2 = views.T[:, :, None]
    # In float64, where a box inside a view has a share of exactly 1.
    left, top, right, bottom = boxes.T.astype(np.float64)
    across = (np.minimum(x2, right) - np.maximum(x1, left)).clip(0)
    down = (np.minimum(y2, bottom) - np.maximum(y1, top)).clip(0)
    share: Floats = across * down / ((right - left) * (bottom - top))
    return share


def choose(boxes: Boxes, draw: float) -> int:
    """The row of the object that a draw from 0..1 picks, larger ones likelier.

    Likelier by the square root of the area, a length: by the area, an object thrice as wide and high would
    come nine times as often, and the small ones, which the crops are there for, hardly ever.
    """
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    ends = np.sqrt(width * height, dtype=np.float64).cumsum()
    return min(int(ends.searchsorted(draw * ends[-1], side="right")), len(boxes) - 1)


def side_limits(height: int, width: int, settings: ObjectCrop) -> tuple[float, float]:
    """Square roots of the smallest and the largest area of a crop, pixels.

    The first is the larger one where no crop of the allowed shapes is as large as it must be.
    """
    area = height * width
    largest = min(area, settings.max_ratio * min(height, width) ** 2)
    return (settings.min_area * area) ** 0.5, largest**0.5


def _resized_crops(
    height: int, width: int, smallest: float, largest: float, settings: ObjectCrop, draws: Floats
) -> Floats:
    """Crops of uniform area anywhere in the image; draws [n, 4] to xyxy [n, 4]."""
    areas = smallest**2 + draws[:, 0] * (largest**2 - smallest**2)
    size = _sizes(np.sqrt(areas), height, width, settings.max_ratio, draws[:, 1])
    corner = _between(np.zeros(2), np.array([width, height]) - size, draws[:, 2:])
    return np.concatenate([corner, corner + size], axis=1)


def _crops_around(
    target: Boxes,
    height: int,
    width: int,
    smallest: float,
    largest: float,
    settings: ObjectCrop,
    draws: Floats,
) -> Floats:
    """Crops sized by an object, placed where most of it may be in view; draws [n, 4] to xyxy [n, 4].

    The object's visible shares of width and height suffice one by one; their product is for the caller.
    """
    start, end = target.reshape(2, 2).astype(np.float64)
    low, high = (
        min(max(multiple * (end - start).max(), smallest), largest)
        for multiple in (settings.min_multiple, settings.max_multiple)
    )
    sides = low * (high / low) ** draws[:, 0]
    size = _sizes(sides, height, width, settings.max_ratio, draws[:, 1])
    needed = (end - start) * settings.target_visible
    first = np.maximum(start + needed - size, 0)
    last = np.minimum(end - needed, np.array([width, height]) - size)
    corner = _between(first, last, draws[:, 2:])
    return np.concatenate([corner, corner + size], axis=1)


def _sizes(sides: Floats, height: int, width: int, max_ratio: float, draws: Floats) -> Floats:
    """Widths and heights [n, 2], whole pixels, of crops of the area of squares.

    Their aspect ratio is log-uniform over those of at most `max_ratio` that fit into the image.
    """
    narrowest = np.maximum(1 / max_ratio, (sides / height) ** 2)
    widest = np.minimum(max_ratio, (width / sides) ** 2)
    root = np.sqrt(narrowest * (widest / narrowest) ** draws)
    return np.stack([sides * root, sides / root], axis=1).round().clip(1, (width, height))


def _between(first: Floats, last: Floats, draws: Floats) -> Floats:
    """Whole numbers from `first` to `last`; where there is none, one that lies between the two."""
    first, last = np.ceil(first), np.floor(last)
    return first + np.floor(draws * (last - first + 1))
