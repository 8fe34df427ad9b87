"""Average precision as the Pascal VOC development kit defines it.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2, for the
11-point AP (VOC 2007); the VOC 2010 development kit for the area under the curve.

The kit walks through the detections of a class, best first, and gives each to the object of that class
and image with the largest IoU. At or above the IoU threshold the detection is
    not counted      if the object is ignored (difficult),
    a true positive  if no better detection took the object before,
    a false positive otherwise, also where another object is free and overlaps enough;
below the threshold it is a false positive. Nothing in "the largest IoU" depends on the walk, so all
assignments are found at once, and the true positive of an object is the first detection assigned to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.data.tensors import Objects
from ssd.metrics.detections import Detections

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# k / 10 correctly rounded, so that a recall of 3 / 10 reaches the point 0.3; in steps of 0.1 (as in the
# kit) that point is 0.30000000000000004 and misses it.
ELEVEN_POINTS: Floats = np.arange(11) / 10


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One class: its precision-recall curve and average precisions.

    recall, precision: float64 [n], after each of the n counted detections, best first; recall ascends.
    num_objects: objects that are not ignored. Without any, both APs are None.
    """

    num_objects: int
    recall: Floats
    precision: Floats
    ap_11point: float | None
    ap_area: float | None


@dataclass(frozen=True, eq=False)
class VocResult:
    """All classes, in label order (label 1 first), and the means over the classes that have objects.

    The means are None where no class has an object.
    """

    iou_threshold: float
    classes: tuple[ClassResult, ...]
    map_11point: float | None
    map_area: float | None


def evaluate_voc(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    num_classes: int,
    iou_threshold: float = 0.5,
) -> VocResult:
    """Score the detections of all images against their objects; item i of both belongs to image i.

    Detections of equal score are taken in the order of the images, then in their order within the image.

    Raises:
        ValueError: the two sequences differ in length, or a label is outside 1..num_classes.
    """
    if len(detections) != len(objects):
        raise ValueError(f"{len(detections)} images with detections, but {len(objects)} with objects")
    truth = _flatten(objects, num_classes)
    ignored = _join([item.ignored for item in objects]).astype(bool)
    found = _flatten(detections, num_classes)
    scores = _join([item.scores for item in detections])
    # lexsort is stable: labels together, best score first, ties as they came.
    found = found.rows(np.lexsort((-scores, found.labels)))

    counted, correct = _judge(found, truth, ignored, iou_threshold)
    num_objects = np.bincount(truth.labels[~ignored], minlength=num_classes + 1)
    bounds = np.searchsorted(found.labels, np.arange(1, num_classes + 2))
    classes = []
    for label in range(1, num_classes + 1):
        rows = slice(bounds[label - 1], bounds[label])
        classes.append(_class_result(correct[rows][counted[rows]], int(num_objects[label])))
    return VocResult(
        iou_threshold,
        tuple(classes),
        map_11point=_mean([result.ap_11point for result in classes]),
        map_area=_mean([result.ap_area for result in classes]),
    )


def mean_ap(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    num_classes: int,
    iou_threshold: float = 0.5,
) -> float | None:
    """VOC 2010 mean average precision, the figure that validation watches; None without any object."""
    return evaluate_voc(detections, objects, num_classes, iou_threshold).map_area


def interpolated_precision(result: ClassResult, recall: Floats) -> Floats:
    """The best precision at each recall or beyond it, float64 of the shape of `recall`; 0 past the curve."""
    return _interpolate(result.recall, result.precision, recall)


class _Flat(NamedTuple):
    """The boxes of all images end to end: boxes float64 [m, 4], labels int64 [m], images int64 [m]."""

    boxes: Floats
    labels: Ints
    images: Ints

    def rows(self, index: Ints) -> "_Flat":
        return _Flat(self.boxes[index], self.labels[index], self.images[index])


def _flatten(items: Sequence[Detections] | Sequence[Objects], num_classes: int) -> _Flat:
    labels = _join([item.labels for item in items]).astype(np.int64)
    outside = labels[(labels < 1) | (labels > num_classes)]
    if len(outside):
        raise ValueError(f"label {outside[0]} is outside 1..{num_classes}")
    boxes = _join([item.boxes for item in items]).astype(np.float64).reshape(-1, 4)
    return _Flat(boxes, labels, np.repeat(np.arange(len(items)), [len(item.labels) for item in items]))


def _join(tensors: Sequence[Tensor]) -> NDArray[Any]:
    """End to end, in one transfer from their device."""
    return torch.cat(list(tensors)).cpu().numpy() if tensors else np.empty(0)


def _judge(found: _Flat, truth: _Flat, ignored: Bools, iou_threshold: float) -> tuple[Bools, Bools]:
    """Which detections count and which are true positives, bool [k] each; `found` is best first."""
    iou, best = _best_overlap(found, truth)
    hits = np.flatnonzero(iou >= iou_threshold)
    taken = best[hits]

    counted = np.ones(len(iou), dtype=bool)
    counted[hits[ignored[taken]]] = False

    hits, taken = hits[~ignored[taken]], taken[~ignored[taken]]
    _, first = np.unique(taken, return_index=True)
    correct = np.zeros(len(iou), dtype=bool)
    correct[hits[first]] = True
    return counted, correct


def _best_overlap(found: _Flat, truth: _Flat) -> tuple[Floats, Ints]:
    """For each detection the largest IoU with an object of its image and class, and that object's row.

    The first of several equal objects wins. IoU 0 and row -1 where image and class have no object.
    """
    num_images = 1 + max(found.images.max(initial=0), truth.images.max(initial=0))
    keys = truth.labels * num_images + truth.images
    wanted = found.labels * num_images + found.images

    # All pairs (detection, object) of equal key; the pairs of a detection are adjacent.
    by_key = np.argsort(keys, kind="stable")
    start = np.searchsorted(keys[by_key], wanted, side="left")
    num_pairs = np.searchsorted(keys[by_key], wanted, side="right") - start
    first_pair = np.cumsum(num_pairs) - num_pairs
    left = np.repeat(np.arange(len(wanted)), num_pairs)
    right = by_key[np.arange(len(left)) + np.repeat(start - first_pair, num_pairs)]
    pair_iou = _iou(found.boxes[left], truth.boxes[right])

    iou, best = np.zeros(len(wanted)), np.full(len(wanted), -1)
    has_pair = num_pairs > 0
    best_pair = np.lexsort((-pair_iou, left))[first_pair[has_pair]]
    iou[has_pair], best[has_pair] = pair_iou[best_pair], right[best_pair]
    return iou, best


def _iou(a: Floats, b: Floats) -> Floats:
    """IoU of paired xyxy boxes [n, 4], float64 [n]."""
    # The kit adds 1 to every width because its corners name the first and the last pixel inside, from 1.
    # Our boxes are half-open, from 0: the same box has x1 lower by one and the same x2, so x2 - x1 is
    # that very width.
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    overlap = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    area_a, area_b = ((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b))
    union = area_a + area_b - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0)


def _class_result(correct: Bools, num_objects: int) -> ClassResult:
    """Curve and APs from the verdicts on the counted detections of a class, best first."""
    num_correct = np.cumsum(correct)
    precision = num_correct / np.arange(1, len(correct) + 1)
    recall = num_correct / max(num_objects, 1)
    if not num_objects:
        return ClassResult(num_objects, recall, precision, None, None)
    ap_11point = float(_interpolate(recall, precision, ELEVEN_POINTS).mean())
    ap_area = float(np.sum(np.diff(recall, prepend=0.0) * _envelope(precision)))
    return ClassResult(num_objects, recall, precision, ap_11point, ap_area)


def _interpolate(recall: Floats, precision: Floats, at: Floats) -> Floats:
    return np.append(_envelope(precision), 0.0)[np.searchsorted(recall, at, side="left")]


def _envelope(precision: Floats) -> Floats:
    """At each place the highest precision from there on."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None; None when all are."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
