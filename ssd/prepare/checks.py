"""Validates an annotation against its image, and removes images that are in two splits (leakage)."""

import difflib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from ssd.prepare.annotations import Annotation, Box, Problem
from ssd.prepare.orientation import UPRIGHT, swaps_sides, turn_box

T = TypeVar("T")

PRECEDENCE = ("test", "val", "train")
"""An image that is in two splits stays in the first of these, so that test metrics are free of leakage."""


@dataclass(frozen=True)
class CheckedObject:
    """A validated object. label: 1..C; box: xyxy in pixels, 0-based, half-open, inside the image."""

    label: int
    box: Box
    difficult: bool
    crowd: bool


def check_annotation(
    annotation: Annotation,
    file: str,
    size: tuple[int, int],
    class_names: Sequence[str],
    orientation: int = UPRIGHT,
) -> tuple[list[CheckedObject], list[Problem]]:
    """The valid objects of an annotation, mended where possible, and the problems found.

    Args:
        file: the annotation's name in `Problem`.
        size: (height, width) in pixels of the decoded image as shown, to which the boxes are to refer.
        class_names: without background.
        orientation: EXIF orientation by which the image was turned (see `boxes_as_shown`).
    """
    problems = [Problem(file, None, flaw, "dropped", num_objects=1) for flaw in annotation.flaws]
    boxes, reason = boxes_as_shown(annotation, size, orientation)
    if reason:
        problems.append(Problem(file, None, reason, "mended"))
    labels = {name: label for label, name in enumerate(class_names, start=1)}
    objects: list[CheckedObject] = []
    seen: set[tuple[int, Box, bool]] = set()

    def drop(written: Box, reason: str) -> None:
        problems.append(Problem(file, written, reason, "dropped", num_objects=1))

    for found, as_shown in zip(annotation.objects, boxes, strict=True):
        if found.name not in labels:
            drop(found.written, f"unknown class {found.name!r}{_meant(found.name, tuple(class_names))}")
            continue
        box, reasons = mend_box(as_shown, size)
        if box is None:
            drop(found.written, reasons[-1])
            continue
        label = labels[found.name]
        if (label, box, found.crowd) in seen:
            drop(found.written, f"duplicate of another {found.name}")
            continue
        seen.add((label, box, found.crowd))
        problems += [Problem(file, found.written, reason, "mended") for reason in reasons]
        objects.append(CheckedObject(label, box, found.difficult, found.crowd))
    return objects, problems


@lru_cache
def _meant(name: str, class_names: tuple[str, ...]) -> str:
    """The class that an annotation's may be, written otherwise."""
    alike = {known.casefold(): known for known in class_names}
    near = difflib.get_close_matches(name.casefold(), alike, n=1, cutoff=0.8)
    return f" (data.classes has {alike[near[0]]!r}: is it that?)" if near else ""


def boxes_as_shown(
    annotation: Annotation, size: tuple[int, int], orientation: int
) -> tuple[list[Box], str | None]:
    """The boxes of an annotation in pixels of the image as shown, and what was mended or is doubtful.

    Of a photo that EXIF turns by a quarter, some tools count pixels of the image as stored, most of the image
    as shown. The size that they write tells; where it does not, as shown is right for LabelImg since 2020,
    Label Studio and whatever writes YOLO's normalised boxes. (Half a turn, orientation 2 to 4, leaves the
    size as it is.)

    Args:
        size: (height, width) in pixels of the image as shown.
        orientation: EXIF orientation of the image, 1 to 8.
    """
    height, width = size
    if annotation.normalised:
        return [_in_pixels(found.box, height, width) for found in annotation.objects], None
    boxes = [found.box for found in annotation.objects]
    if annotation.size is None or annotation.size == size:
        return boxes, None
    written_height, written_width = annotation.size
    reason = f"size {written_width}x{written_height} is written, the image is {width}x{height}"
    if not swaps_sides(orientation) or annotation.size != (width, height):
        return boxes, f"{reason}; boxes kept"
    turned = [turn_box(box, size, orientation) for box in boxes]
    return turned, f"{reason} as EXIF orientation {orientation} shows it; boxes turned" if turned else None


def _in_pixels(box: Box, height: int, width: int) -> Box:
    """A box in pixels, of the same box normalised to [0, 1].

    Six decimals, as tools write them, leave a rounding error below 0.01 pixels, which must not count as
    outside the image.
    """
    x1, y1, x2, y2 = box
    return round(x1 * width, 2), round(y1 * height, 2), round(x2 * width, 2), round(y2 * height, 2)


def mend_box(box: Box, size: tuple[int, int]) -> tuple[Box | None, list[str]]:
    """Put the corners of a box (xyxy in pixels, 0-based, half-open) in order and clip it to the image.

    Args:
        size: (height, width) of the image in pixels.

    Returns:
        the box, or None if it cannot be mended; and the reasons why it was mended or dropped, if any.
    """
    reasons: list[str] = []
    x1, y1, x2, y2 = box
    if x1 > x2 or y1 > y2:
        reasons.append("corners in the wrong order")
        x1, x2 = sorted((x1, x2))
        y1, y2 = sorted((y1, y2))
    if x1 == x2 or y1 == y2:
        return None, [*reasons, "zero size"]
    height, width = size
    overshoot = max(-x1, -y1, x2 - width, y2 - height)
    clipped = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return None, [*reasons, "outside the image"]
    if overshoot > 0:
        amount = "by a pixel or less" if overshoot <= 1 else f"by {overshoot:g} pixels"
        reasons.append(f"reaches over the image's edge {amount}; clipped")
    return clipped, reasons


@dataclass(frozen=True)
class Leak(Generic[T]):
    """A member removed from `split` because split `owner` contains the same: `original`."""

    split: str
    member: T
    owner: str
    original: T


def drop_leaks(
    splits: Mapping[str, Sequence[T]], key: Callable[[T], Hashable]
) -> tuple[dict[str, list[T]], list[Leak[T]]]:
    """Remove from each split ("train", "val", "test") the members with a `key` that another split has too.

    Returns:
        the remaining members of each split (see PRECEDENCE), and the removed ones.
    """
    owners: dict[Hashable, tuple[str, T]] = {}
    kept: dict[str, list[T]] = {split: [] for split in splits}
    leaks: list[Leak[T]] = []
    for split in (name for name in PRECEDENCE if name in splits):
        for member in splits[split]:
            owner, original = owners.setdefault(key(member), (split, member))
            if owner == split:
                kept[split].append(member)
            else:
                leaks.append(Leak(split, member, owner, original))
    return kept, leaks
