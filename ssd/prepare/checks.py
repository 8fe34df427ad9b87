"""Validates an annotation against its image, and removes images that are in two splits (leakage)."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ssd.prepare.annotations import Annotation, Box, Problem

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
    annotation: Annotation, file: str, size: tuple[int, int], class_names: Sequence[str]
) -> tuple[list[CheckedObject], list[Problem]]:
    """The valid objects of an annotation, mended where possible, and the problems found.

    Args:
        file: the annotation's name in `Problem`.
        size: (height, width) in pixels of the decoded image, to which the boxes refer.
        class_names: without background.
    """
    problems = [Problem(file, None, flaw, "dropped") for flaw in annotation.flaws]
    if annotation.size is not None and annotation.size != size:
        (height, width), (found_height, found_width) = annotation.size, size
        reason = f"size {width}x{height} is written, the image is {found_width}x{found_height}"
        problems.append(Problem(file, None, f"{reason}; boxes kept", "mended"))
    labels = {name: label for label, name in enumerate(class_names, start=1)}
    objects: list[CheckedObject] = []
    seen: set[tuple[int, Box, bool]] = set()
    for found in annotation.objects:
        if found.name not in labels:
            problems.append(Problem(file, found.written, f"unknown class {found.name!r}", "dropped"))
            continue
        box, reasons = mend_box(found.box, size)
        if box is None:
            problems.append(Problem(file, found.written, reasons[-1], "dropped"))
            continue
        label = labels[found.name]
        if (label, box, found.crowd) in seen:
            problems.append(Problem(file, found.written, f"duplicate of another {found.name}", "dropped"))
            continue
        seen.add((label, box, found.crowd))
        problems += [Problem(file, found.written, reason, "mended") for reason in reasons]
        objects.append(CheckedObject(label, box, found.difficult, found.crowd))
    return objects, problems


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
