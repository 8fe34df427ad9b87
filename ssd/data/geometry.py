"""One resample an image: crop, zoom-out, flip and resize are a single axis-aligned map.

A `View` is sampled on box coordinates, which is cheap; then the decoded uint8 image is resampled
once, with antialiasing, and the boxes go through the same map.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class View:
    """The part of an image that fills the network's input.

    x1, y1, x2, y2: pixels of the source, half-open; may reach outside the image (zoom-out), where the
    canvas shows. flip: mirror horizontally.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    flip: bool = False


def whole(height: int, width: int) -> View:
    """The view of validation and inference: the whole image, stretched to the input."""
    return View(0.0, 0.0, float(width), float(height))


def map_boxes(boxes: Tensor, view: View) -> Tensor:
    """Boxes xyxy in pixels of the source to shares of the view; float32 [m, 4], clipped to it."""
    origin = boxes.new_tensor([view.x1, view.y1, view.x1, view.y1])
    size = boxes.new_tensor([view.x2 - view.x1, view.y2 - view.y1] * 2)
    mapped = ((boxes - origin) / size).clamp_(0, 1)
    if view.flip:
        x1, y1, x2, y2 = mapped.unbind(-1)
        mapped = torch.stack([1 - x2, y1, 1 - x1, y2], dim=-1)
    return mapped


def render(image: Tensor, view: View, side: int, fill: Tensor) -> Tensor:
    """Resample the view of a uint8 [3, H, W] image to uint8 [3, side, side].

    The visible part is cut at whole pixels and resized by torch's antialiased uint8 kernel, then pasted
    on a canvas of colour `fill` (uint8 [3]) where the view reaches outside the image.
    """
    height, width = image.shape[1:]
    left, right = _visible(view.x1, view.x2, width)
    top, bottom = _visible(view.y1, view.y2, height)
    part = image[:, top:bottom, left:right]
    x1, x2 = _placed(left, right, view.x1, view.x2, side)
    y1, y2 = _placed(top, bottom, view.y1, view.y2, side)
    if (y2 - y1, x2 - x1) != part.shape[1:]:
        size = (y2 - y1, x2 - x1)
        part = F.interpolate(part[None], size=size, mode="bilinear", antialias=True)[0]
    if view.flip:
        part = part.flip(-1)
        x1, x2 = side - x2, side - x1
    if part.shape[1:] == (side, side):
        return part.contiguous()
    canvas = fill[:, None, None].expand(3, side, side).clone()
    canvas[:, y1:y2, x1:x2] = part
    return canvas


def _visible(start: float, end: float, length: int) -> tuple[int, int]:
    """The pixels of a row of `length` that a span shows, at least one."""
    first = min(max(round(start), 0), length - 1)
    return first, min(max(round(end), first + 1), length)


def _placed(first: int, last: int, start: float, end: float, side: int) -> tuple[int, int]:
    """Where source pixels first..last land on a canvas of `side` that shows start..end; one at least."""
    scale = side / (end - start)
    low = min(max(round((first - start) * scale), 0), side - 1)
    return low, min(max(round((last - start) * scale), low + 1), side)
