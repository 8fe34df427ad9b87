"""Detections on a picture of full size, in the classes' colours, by Pillow: no axes, no margins."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssd.plots.figures import class_colour, text_colour
from ssd.structures import Detections

MIN_SIDE = 480
"""Pixels of the longer side; a smaller picture is enlarged by a whole number, so that labels are readable."""

MAX_ZOOM = 8

Patch = tuple[float, float, float, float]
"""x1, y1, x2, y2 of a label, in pixels."""


def draw_detections(image: np.ndarray, found: Detections, class_names: list[str]) -> np.ndarray:
    """A copy of an image with boxes, and on each its class and score; the best on top.

    Args:
        image: uint8 RGB [H, W, 3].
        found: in pixels of the image.
        class_names: in label order.

    Returns:
        uint8 RGB [zoom H, zoom W, 3], where zoom is 1 from MIN_SIDE pixels on.
    """
    height, width = image.shape[:2]
    zoom = min(max(1, -(-MIN_SIDE // max(height, width))), MAX_ZOOM)
    canvas = Image.fromarray(image).resize((width * zoom, height * zoom), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    side = max(canvas.size)
    line, font = max(2, round(side / 300)), _font(max(12, round(side / 45)))
    rows = list(zip((found.boxes * zoom).tolist(), found.labels.tolist(), found.scores.tolist(), strict=True))
    for box, label, _ in reversed(rows):
        _draw_box(draw, box, class_colour(label), line)
    taken: list[Patch] = []
    for box, label, score in rows:
        text = f"{class_names[label - 1]} {score:.2f}"
        patch = _place(draw.textbbox((0, 0), text, font), box, canvas.size, line, taken)
        taken.append(patch)
        draw.rectangle(patch, fill=class_colour(label))
        middle = (patch[0] + patch[2]) / 2, (patch[1] + patch[3]) / 2
        draw.text(middle, text, text_colour(class_colour(label)), font, anchor="mm")
    return np.asarray(canvas)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of matplotlib's figures, which comes with it: Latin, Greek, Cyrillic and more."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _draw_box(draw: ImageDraw.ImageDraw, box: list[float], colour: str, line: int) -> None:
    """An outline inside the box; a thin white one around it shows it on a background of its colour."""
    x1, y1, x2, y2 = box
    # Pillow's corners are pixels of the outline; those of boxes lie between pixels.
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    draw.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline="white", width=1)
    draw.rectangle((x1, y1, x2, y2), outline=colour, width=line)


def _place(
    extent: tuple[float, float, float, float],
    box: list[float],
    size: tuple[int, int],
    line: int,
    taken: list[Patch],
) -> Patch:
    """Where a label with a text of this extent is put: in the picture, on no other label if there is room."""
    width, height = extent[2] - extent[0] + 2 * line, extent[3] - extent[1] + 2 * line
    places = [(left, top, left + width, top + height) for left, top in _corners(box, width, height, size)]
    return next((place for place in places if not any(_overlap(place, other) for other in taken)), places[0])


def _corners(
    box: list[float], width: float, height: float, size: tuple[int, int]
) -> Iterator[tuple[float, float]]:
    """Upper left corners of a label: above the box, inside it, below it, first at its left side."""
    x1, y1, x2, y2 = box
    for top in (y1 - height, y1, y2 - height, y2):
        for left in (x1, x2 - width):
            inside = 0 <= top <= size[1] - height
            if inside or top == y1:
                yield max(0, min(left, size[0] - width)), max(0, min(top, size[1] - height))


def _overlap(one: Patch, other: Patch) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
