"""One resample per image: crop, zoom-out, flip and resize are a single axis-aligned map.

A `View` is sampled on box coordinates, which is cheap; then the decoded uint8 image is resampled
once, with antialiasing, and the boxes go through the same map.

Images are [3, H, W] and channels last in memory, as JPEG decoding returns them and as torch's uint8
kernels are fastest; any other memory layout gives the same pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class View:
    """The part of an image that fills the network's input.

    x1, y1, x2, y2: pixels of the source, half-open; may reach outside the image (zoom-out), where the
    input is filled with one colour. flip: mirror horizontally.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    flip: bool = False


def full_view(height: int, width: int) -> View:
    """The view of validation and inference: the whole image, stretched to the input."""
    return View(0.0, 0.0, float(width), float(height))


def normalise_boxes(boxes: Tensor, view: View) -> Tensor:
    """Boxes xyxy in pixels of the source to boxes normalised to [0, 1] by the view's sides and clipped to it.

    float32 [M, 4] to float32 [M, 4].
    """
    origin = np.array([view.x1, view.y1, view.x1, view.y1], np.float32)
    size = np.array([view.x2 - view.x1, view.y2 - view.y1] * 2, np.float32)
    # Few boxes: NumPy calls take a third of the time of torch calls.
    mapped = ((boxes.numpy() - origin) / size).clip(0, 1)
    if view.flip:
        mapped[:, 0::2] = 1 - mapped[:, 2::-2]
    return torch.from_numpy(mapped)


def render(image: Tensor, view: View, side: int, fill: Tensor) -> Tensor:
    """Resample the view of a uint8 [3, H, W] image to uint8 [3, side, side].

    The visible part is cut at whole pixels and resized by torch's antialiased uint8 kernel, then pasted
    on a canvas of colour `fill` (uint8 [3]) where the view reaches outside the image. The result may
    share memory with `image`.
    """
    part, top, left = resample(image, view, side, side)
    if part.shape[1:] == (side, side):
        return part
    canvas = blank(side, fill)
    canvas[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return canvas


def blank(side: int, fill: Tensor) -> Tensor:
    """A canvas of one colour (uint8 [3]), uint8 [3, side, side]."""
    # Written row by row: three bytes at a time take twenty times as long.
    return fill.repeat(side).expand(side, -1).clone().view(side, side, 3).permute(2, 0, 1)


def resample(image: Tensor, view: View, height: int, width: int) -> tuple[Tensor, int, int]:
    """Resample the visible part of a view for a canvas of height x width, and find its place there.

    Returns:
        The part, uint8 [3, h, w] (at least one pixel), and the canvas pixel of its top left corner:
        row, column.
    """
    left, right = _visible(view.x1, view.x2, image.shape[2])
    top, bottom = _visible(view.y1, view.y2, image.shape[1])
    x1, x2 = _placed(left, right, view.x1, view.x2, width)
    y1, y2 = _placed(top, bottom, view.y1, view.y2, height)
    # Via [1, h, w, 3], so that torch recognises the memory as channels last.
    part = image[:, top:bottom, left:right].permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    if (y2 - y1, x2 - x1) != part.shape[2:]:
        part = F.interpolate(part, size=(y2 - y1, x2 - x1), mode="bilinear", antialias=True)
    if view.flip:
        part = part.flip(-1)
        x1 = width - x2
    return part[0], y1, x1


def _visible(start: float, end: float, length: int) -> tuple[int, int]:
    """The range of pixels of a row of `length` that a span covers, at least one."""
    first = min(max(round(start), 0), length - 1)
    return first, min(max(round(end), first + 1), length)


def _placed(first: int, last: int, start: float, end: float, side: int) -> tuple[int, int]:
    """The range on a canvas of `side`, which shows start..end, of source pixels first..last; at least one."""
    scale = side / (end - start)
    low = min(max(round((first - start) * scale), 0), side - 1)
    return low, min(max(round((last - start) * scale), low + 1), side)
