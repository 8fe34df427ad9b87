"""The box around an outline in COCO JSON: polygons, or runs of a mask (cocodataset.org, format of data)."""

import math
from typing import Any

from ssd.prepare.annotations import Box

_LARGEST = 1e9  # pixels


def outline_box(segmentation: object) -> Box | None:
    """The smallest box, xyxy in pixels, around `segmentation`; None if it is malformed or compressed.

    Args:
        segmentation: a list of polygons, each x1, y1, x2, y2, ...; or a mask {"size": [height, width],
            "counts": [...]}, lengths of runs that are alternately 0 and 1, column by column.
    """
    if isinstance(segmentation, dict):
        return _mask_box(segmentation.get("size"), segmentation.get("counts"))
    if not isinstance(segmentation, list) or not all(isinstance(outline, list) for outline in segmentation):
        return None
    values = [value for outline in segmentation for value in outline]
    if any(len(outline) % 2 for outline in segmentation) or not all(map(_is_number, values)) or not values:
        return None
    # Each polygon has an even number of values, so x and y alternate over all of them.
    xs, ys = values[0::2], values[1::2]
    return float(min(xs)), float(min(ys)), float(max(xs)), float(max(ys))


def _mask_box(size: Any, counts: Any) -> Box | None:
    well_formed = isinstance(size, list) and isinstance(counts, list) and len(size) == 2
    if not well_formed or not all(type(value) is int and value >= 0 for value in (*size, *counts)):
        return None
    height, width = size
    if not height or sum(counts) > height * width:
        return None
    columns: list[int] = []
    rows: list[int] = []
    start = 0
    for number, length in enumerate(counts):
        if number % 2 and length:
            (first, top), (last, bottom) = divmod(start, height), divmod(start + length - 1, height)
            columns += [first, last]
            rows += [top, bottom] if first == last else [0, height - 1]
        start += length
    if not columns:
        return None
    return float(min(columns)), float(min(rows)), float(max(columns) + 1), float(max(rows) + 1)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST and math.isfinite(value)
