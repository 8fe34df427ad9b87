"""Parses YOLO's label files: an object per line, `class cx cy w h`, cxcywh normalised to [0, 1].

Also lines of other tasks that Ultralytics trains a detector on, or writes as predictions:
    class x1 y1 x2 y2 x3 y3 ...      a polygon, of which the smallest box around it is taken
    class cx cy w h k1 k2 ...        a pose, of which the box is taken; data.yaml says so by kpt_shape
    class cx cy w h confidence       the confidence is not used; the same after a polygon
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ssd.prepare.annotations import AnnotatedObject, Annotation, Box

_LARGEST = 1.01  # Ultralytics' tolerance; a larger number is a coordinate in pixels
_MAX_DIGITS = 10


@dataclass(frozen=True)
class Labels:
    """The content of a label file. kinds: number of lines that are a polygon or pose or have a confidence."""

    annotation: Annotation
    kinds: Counter[str]


def parse_labels(text: str, names: Sequence[str], *, pose: bool = False) -> Labels:
    """Read the objects of a label file; a line that cannot be read is a flaw.

    Args:
        names: class names, in the order of the numbers.
        pose: keypoints follow each box.
    """
    objects: list[AnnotatedObject] = []
    flaws: list[str] = []
    kinds: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        found = _object(line.split(), names, pose, kinds)
        if isinstance(found, str):
            flaws.append(f"line {number}: {found}")
        else:
            objects.append(found)
    return Labels(Annotation(None, tuple(objects), tuple(flaws), normalised=True), kinds)


def looks_like_labels(text: str) -> bool:
    """Whether the first line of a text is one of a label file; an empty text has no objects, so it may be."""
    words = next((line.split() for line in text.splitlines() if line.strip()), None)
    return words is None or (len(words) >= 5 and all(_number(word) is not None for word in words))


def _object(
    words: Sequence[str], names: Sequence[str], pose: bool, kinds: Counter[str]
) -> AnnotatedObject | str:
    """An object, or the reason why its line cannot be read."""
    label = _number(words[0]) if len(words[0]) <= _MAX_DIGITS else None
    if label is None or not label.is_integer() or not 0 <= label < len(names):
        return f"class {words[0][:_MAX_DIGITS]} is none of 0 to {len(names) - 1}"
    if len(words) < 5:
        return f"has {len(words)} columns, not class cx cy w h"
    numbers = [_number(word) for word in words[1:]]
    values = [value for value in numbers if value is not None]
    if len(values) < len(numbers):
        return f"{' '.join(words[1:5])}: not finite numbers"
    if max(map(abs, values[:4] if pose else values)) > _LARGEST:
        return f"{' '.join(words[1:5])}: not normalised to [0, 1]; pixels?"
    name = names[int(label)]
    if pose and len(values) > 4:
        kinds["pose"] += 1
        values = values[:4]
    elif len(values) % 2:
        kinds["confidence"] += 1
        values = values[:-1]
    if len(values) == 4:
        cx, cy, w, h = values
        return AnnotatedObject(name, (cx, cy, w, h), (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    kinds["polygon"] += 1
    xs, ys = values[0::2], values[1::2]
    box: Box = min(xs), min(ys), max(xs), max(ys)
    return AnnotatedObject(name, box, box)


def _number(word: str) -> float | None:
    """`word` as a finite number, else None."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
