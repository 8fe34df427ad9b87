"""Average precision as the Pascal VOC development kit defines it, and F1 on the same curve.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2, for the
11-point AP (VOC 2007); the VOC 2010 development kit for the area under the curve.

The kit iterates over the detections of a class, by descending score, and assigns each to the object of that
class and image with the largest IoU. At or above the IoU threshold the detection is
    not counted      if the object is ignored (difficult),
    a true positive  if no better detection is assigned to the object,
    a false positive otherwise (duplicate), also where another object is unmatched and overlaps enough;
below the threshold it is a false positive. The largest IoU does not depend on the order, so all assignments
are found at once, and the true positive of an object is the first detection assigned to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd.metrics.pairs import Bools, Flat, Floats, Ints, flat_boxes, iou, join, pairs_of_equal_key
from ssd.structures import Detections, Objects

ELEVEN_POINTS: Floats = np.arange(11) / 10
"""k / 10 correctly rounded, so that a recall of 3 / 10 reaches the point 0.3."""

ELEVEN_POINTS_ARANGE: Floats = np.arange(0.0, 1.1, 0.1)
"""The grid of the public Python evaluators: a recall of 3 / 10 misses 0.30000000000000004, and likewise of
6 / 10 and 7 / 10. Kept for comparison with what they print."""

RECALL_GRID: Floats = np.arange(101) / 100
"""Recalls at which curves are sampled for tables and figures."""


@dataclass(frozen=True, eq=False)
class JudgedDetections:
    """The detections of all images, each compared with the objects of its image and class.

    found: by label, within a label best first, ties in the order of the input; scores: float32 [N];
    counted: bool [N], false where an ignored object is detected; taken: int64 [N], the row in `truth` of the
    object that a true positive is assigned to, -1 for all others; truth: the objects of all images; ignored:
    bool [M]; iou_threshold: from which a detection is assigned to an object.
    """

    iou_threshold: float
    found: Flat
    scores: NDArray[np.float32]
    counted: Bools
    taken: Ints
    truth: Flat
    ignored: Bools


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One class: its precision-recall curve and average precisions.

    recall, precision: float64 [N], after each of the N counted detections, best first; recall ascends.
    ap_11point, ap_11point_arange: on ELEVEN_POINTS, on ELEVEN_POINTS_ARANGE; ap_area: under the curve.
    num_objects: objects that are not ignored. Without any, the APs and F1 are None.
    f1: of the detections from `VocResult.f1_score` on, or, where that is 0, the largest on the curve. F1 is
    the harmonic mean of precision and recall (van Rijsbergen, "Information Retrieval", 1979, chapter 7: 1 - E
    at alpha 1/2).
    """

    num_objects: int
    recall: Floats
    precision: Floats
    ap_11point: float | None
    ap_11point_arange: float | None
    ap_area: float | None
    f1: float | None


@dataclass(frozen=True, eq=False)
class VocResult:
    """All classes, in label order (label 1 first), and the means over the classes that have objects.

    The means are None where no class has an object. f1_score: the score threshold of F1; 0 takes the best one
    of each class.
    """

    iou_threshold: float
    f1_score: float
    classes: tuple[ClassResult, ...]
    map_11point: float | None
    map_11point_arange: float | None
    map_area: float | None
    mean_f1: float | None


def evaluate_voc(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    num_classes: int,
    iou_threshold: float = 0.5,
    f1_score: float = 0.0,
) -> VocResult:
    """Score the detections of all images against their objects; see `judge_detections`."""
    judged = judge_detections(detections, objects, num_classes, iou_threshold)
    return voc_result(judged, num_classes, f1_score)


def judge_detections(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    num_classes: int,
    iou_threshold: float = 0.5,
) -> JudgedDetections:
    """Compare the detections of all images with their objects; item i of both belongs to image i.

    Detections of equal score are taken in the order of the images, then in their order within the image.

    Raises:
        ValueError: the two sequences differ in length, or a label is outside 1..num_classes.
    """
    if len(detections) != len(objects):
        raise ValueError(f"{len(detections)} images with detections, but {len(objects)} with objects")
    truth = flat_boxes(objects, num_classes)
    ignored = join([item.ignored for item in objects]).astype(bool)
    found = flat_boxes(detections, num_classes)
    scores = join([item.scores for item in detections])
    # lexsort is stable: grouped by label, descending score, ties in the order of the input.
    order = np.lexsort((-scores, found.labels))
    found = found.rows(order)
    counted, taken = _judge(found, truth, ignored, iou_threshold)
    scores = scores[order].astype(np.float32)
    return JudgedDetections(iou_threshold, found, scores, counted, taken, truth, ignored)


def voc_result(judged: JudgedDetections, num_classes: int, f1_score: float = 0.0) -> VocResult:
    """The curves and average precisions of all classes; f1_score: see `VocResult`."""
    num_objects = np.bincount(judged.truth.labels[~judged.ignored], minlength=num_classes + 1)
    bounds = np.searchsorted(judged.found.labels, np.arange(1, num_classes + 2))
    classes = []
    for label in range(1, num_classes + 1):
        rows = slice(bounds[label - 1], bounds[label])
        counted = judged.counted[rows]
        correct = judged.taken[rows][counted] >= 0
        scores = judged.scores[rows][counted]
        place = int(np.count_nonzero(scores >= f1_score)) if f1_score > 0 else None
        classes.append(_class_result(correct, int(num_objects[label]), place))
    return VocResult(
        judged.iou_threshold,
        f1_score,
        tuple(classes),
        map_11point=_mean([result.ap_11point for result in classes]),
        map_11point_arange=_mean([result.ap_11point_arange for result in classes]),
        map_area=_mean([result.ap_area for result in classes]),
        mean_f1=_mean([result.f1 for result in classes]),
    )


def sampled_curve(result: ClassResult) -> list[tuple[float, float]]:
    """(recall, interpolated precision) at recalls 0, 0.01, ... up to the highest recall of the class.

    Interpolated precision is the highest at that recall or beyond. Empty without objects or detections.
    """
    if not result.num_objects or not len(result.recall):
        return []
    recall = RECALL_GRID[: np.searchsorted(RECALL_GRID, result.recall[-1], side="right")]
    precision = _interpolate(result.recall, result.precision, recall)
    return list(zip(recall.tolist(), precision.tolist(), strict=True))


def mean_precision(result: VocResult) -> list[tuple[float, float]]:
    """(recall, precision) at recalls 0, 0.01, ... 1: interpolated precision, averaged over classes.

    Over the classes that have objects; its mean is close to the mAP. Empty where no class has objects.
    """
    curves = [
        _interpolate(curve.recall, curve.precision, RECALL_GRID)
        for curve in result.classes
        if curve.num_objects
    ]
    if not curves:
        return []
    return list(zip(RECALL_GRID.tolist(), np.mean(curves, axis=0).tolist(), strict=True))


def _judge(found: Flat, truth: Flat, ignored: Bools, iou_threshold: float) -> tuple[Bools, Ints]:
    """`JudgedDetections.counted` and `.taken` of detections that are best first within their class."""
    overlap, best = _best_overlap(found, truth)
    hits = np.flatnonzero(overlap >= iou_threshold)
    assigned = best[hits]

    counted = np.ones(len(overlap), dtype=bool)
    counted[hits[ignored[assigned]]] = False

    hits, assigned = hits[~ignored[assigned]], assigned[~ignored[assigned]]
    objects, first = np.unique(assigned, return_index=True)
    taken = np.full(len(overlap), -1)
    taken[hits[first]] = objects
    return counted, taken


def _best_overlap(found: Flat, truth: Flat) -> tuple[Floats, Ints]:
    """For each detection the largest IoU with an object of its image and class, and that object's row.

    The first of several equal objects wins. IoU 0 and row -1 where image and class have no object.
    """
    num_images = 1 + max(found.images.max(initial=0), truth.images.max(initial=0))
    wanted, keys = (flat.labels * num_images + flat.images for flat in (found, truth))
    left, right = pairs_of_equal_key(wanted, keys)
    # The kit adds 1 to every width because its corners are 1-based and inclusive. Boxes here are 0-based and
    # half-open: the same box has x1 lower by one and the same x2, so x2 - x1 is the same width.
    pair_iou = iou(found.boxes[left], truth.boxes[right])
    # The pairs of a detection by descending IoU, those of equal IoU in the order of the objects.
    by_iou = np.lexsort((-pair_iou, left))
    has_pair, first = np.unique(left, return_index=True)
    best_pair = by_iou[first]

    best_iou, best = np.zeros(len(wanted)), np.full(len(wanted), -1)
    best_iou[has_pair], best[has_pair] = pair_iou[best_pair], right[best_pair]
    return best_iou, best


def _class_result(correct: Bools, num_objects: int, place: int | None) -> ClassResult:
    """Curve, APs and F1 of a class.

    correct: bool [N], the true positives among counted detections; place: F1 is of so many of these, the
    first; None for the best place.
    """
    num_correct = np.cumsum(correct)
    precision = num_correct / np.arange(1, len(correct) + 1)
    recall = num_correct / max(num_objects, 1)
    if not num_objects:
        return ClassResult(num_objects, recall, precision, None, None, None, None)
    ap_11point, ap_11point_arange = (
        float(_interpolate(recall, precision, grid).mean()) for grid in (ELEVEN_POINTS, ELEVEN_POINTS_ARANGE)
    )
    ap_area = float(np.sum(np.diff(recall, prepend=0.0) * _envelope(precision)))
    # 2 p r / (p + r) with p = correct / detections and r = correct / objects; no 0 / 0 in this form.
    f1 = 2 * num_correct / (np.arange(1, len(correct) + 1) + num_objects)
    found = float(f1.max(initial=0.0) if place is None else np.append(0.0, f1)[place])
    return ClassResult(num_objects, recall, precision, ap_11point, ap_11point_arange, ap_area, found)


def _interpolate(recall: Floats, precision: Floats, at: Floats) -> Floats:
    return np.append(_envelope(precision), 0.0)[np.searchsorted(recall, at, side="left")]


def _envelope(precision: Floats) -> Floats:
    """Interpolated precision: at each position the highest precision from there on."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None; None when all are."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
