"""Mosaic augmentation: four images in one, for smaller objects, and more of them out of their context.

Bochkovskiy et al., YOLOv4 (2020), section 3.3.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from ssd.loading.augment import objects_in_view, sample_view
from ssd.loading.view import View, resample
from ssd.params import AugmentParams
from ssd.structures import Objects, Target

MIDDLE = (0.25, 0.75)
"""Range of the point where the four images meet, normalised by the sides of the canvas."""

Part = tuple[Tensor, Objects]
"""An image, uint8 [3, H, W], and its objects in pixels."""


def mosaic(
    parts: Sequence[Part], side: int, augment: AugmentParams, generator: Generator
) -> tuple[Tensor, Target]:
    """Combine four images around a random centre.

    Each image has a view of its own and fills its quadrant with the part of the view that has the
    quadrant's aspect ratio, in one resample. There is no zoom-out: a mosaic already shrinks its images.

    Args:
        parts: four images, for the quadrants at the top left, top right, bottom left and bottom right.
        side: of the canvas, pixels.
        augment: flip, and the crops of the policy.
        generator: source of all randomness.

    Returns:
        The canvas, uint8 [3, side, side], and the objects that stay in their quadrant's view (see
        `objects_in_view`), clipped to it, normalised by the sides of the canvas. There may be none: a
        quadrant shows only part of a view.
    """
    augment = augment.model_copy(update={"zoom_out": 0.0})
    low, high = MIDDLE
    column, row = (
        round(side * (low + (high - low) * x)) for x in torch.rand(2, generator=generator).tolist()
    )
    quadrants = (
        (0, 0, column, row),
        (column, 0, side, row),
        (0, row, column, side),
        (column, row, side, side),
    )
    canvas = torch.empty(side, side, 3, dtype=torch.uint8).permute(2, 0, 1)
    found = []
    for (image, objects), (x1, y1, x2, y2) in zip(parts, quadrants, strict=True):
        height, width = image.shape[1:]
        view = sample_view(height, width, objects, augment, generator)
        view = _window(view, x2 - x1, y2 - y1, generator)
        canvas[:, y1:y2, x1:x2], _, _ = resample(image, view, y2 - y1, x2 - x1)
        inside = objects_in_view(objects, view, augment)
        scale, shift = torch.tensor([x2 - x1, y2 - y1] * 2), torch.tensor([x1, y1, x1, y1])
        found.append(replace(inside, boxes=(inside.boxes * scale + shift) / side))
    boxes, labels, ignored = zip(*((o.boxes, o.labels, o.ignored) for o in found), strict=True)
    return canvas, Target(torch.cat(boxes), torch.cat(labels), torch.cat(ignored))


def _window(view: View, width: int, height: int, generator: Generator) -> View:
    """The largest part of a view with the shape of width x height, at a random place, in whole pixels."""
    across, down = torch.rand(2, generator=generator).tolist()
    x1, x2 = _span(view.x1, view.x2, width / max(width, height), across)
    y1, y2 = _span(view.y1, view.y2, height / max(width, height), down)
    return View(x1, y1, x2, y2, view.flip)


def _span(start: float, end: float, share: float, place: float) -> tuple[int, int]:
    """A part of start..end, `share` of its length; `place` 0 is at the start, 1 at the end."""
    length = max(round((end - start) * share), 1)
    first = round(start + (end - start - length) * place)
    return first, first + length
