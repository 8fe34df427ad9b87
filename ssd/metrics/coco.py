"""Average precision as the COCO benchmark defines it: Lin et al., "Microsoft COCO", ECCV 2014.

The benchmark's own code iterates over the detections of each class and image, by descending score, once per
IoU threshold (ten of them). A detection is matched to the unmatched object with the largest IoU; it is
    a true positive  if that IoU reaches the threshold,
    not counted      otherwise, if the fraction of it inside an ignored object reaches the threshold,
    a false positive otherwise.
Here all images and thresholds of a class are matched at once. This greedy matching is the only stable
matching if all objects prefer the detection with the higher score (Gale and Shapley, "College admissions and
the stability of marriage", 1962), and their algorithm needs as many rounds as detections compete for an
object, not as many as an image has detections.

Ties of scores and IoUs are resolved, and sums are computed, in the order of the benchmark's code, so that the
results are bit-identical to its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssd.metrics.pairs import (
    Bools,
    Flat,
    Floats,
    Ints,
    area,
    flat_boxes,
    intersection,
    join,
    pairs_of_equal_key,
)
from ssd.structures import Detections, Objects

MAX_DETECTIONS = 100
IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
RECALL_POINTS: Floats = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class CocoResult:
    """COCO's average precisions; None where there is no ground truth.

    map: mean over classes and the IoU thresholds 0.50, 0.55, ... 0.95; map50, map75: at one threshold;
    per_class_map, per_class_map50: the same for each class name, in label order.
    """

    map: float | None
    map50: float | None
    map75: float | None
    per_class_map: dict[str, float | None]
    per_class_map50: dict[str, float | None]


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The detections of one class over all images, best first, after matching.

    images: int64 [N], the image of each detection; correct, wrong: bool [IoU thresholds, N], true and false
    positives; those that are neither are not counted; object_images: int64 [M], the image of each object that
    is not ignored, at least one.
    """

    images: Ints
    correct: Bools
    wrong: Bools
    object_images: Ints


def evaluate_coco(
    detections: Sequence[Detections], objects: Sequence[Objects], class_names: Sequence[str]
) -> CocoResult:
    """Score the detections of all images against their objects; see `match_classes`."""
    return coco_result(match_classes(detections, objects, class_names), class_names)


def match_classes(
    detections: Sequence[Detections], objects: Sequence[Objects], class_names: Sequence[str]
) -> dict[str, ClassMatches]:
    """Match the detections of all images to their objects; item i of both belongs to image i.

    Ignored objects are what COCO calls a crowd: a detection of them is neither a true nor a false positive.
    The VOC metrics ignore the same objects, but COCO matches them by the fraction of the detection inside
    them instead of by IoU, and each can match any number of detections.

    The 100 best detections per class and image count, as in the benchmark's code; its results with fewer
    (1, 10) are recalls, not computed here.

    Args:
        class_names: without background; label 1 is the first.

    Returns:
        For each class with an object that is not ignored, in label order.

    Raises:
        ValueError: the two sequences differ in length, or a label has no name.
    """
    if len(detections) != len(objects):
        raise ValueError(f"{len(detections)} images with detections, but {len(objects)} with objects")
    truth = flat_boxes(objects, len(class_names))
    ignored = join([item.ignored for item in objects]).astype(bool)
    found = flat_boxes(detections, len(class_names))
    # lexsort is stable: grouped by label, descending score, ties in the order of the input.
    found = found.rows(np.lexsort((-join([item.scores for item in detections]), found.labels)))
    bounds = np.searchsorted(found.labels, np.arange(1, len(class_names) + 2))

    matches: dict[str, ClassMatches] = {}
    for label, name in enumerate(class_names, start=1):
        of_class = truth.labels == label
        if not ignored[of_class].all():
            candidates = _best_of_each_image(found.rows(slice(bounds[label - 1], bounds[label])))
            matches[name] = _match_class(candidates, truth.rows(of_class), ignored[of_class])
    return matches


def coco_result(matches: Mapping[str, ClassMatches], class_names: Sequence[str]) -> CocoResult:
    """The figures of all classes together and of each; `matches` is the result of `match_classes`."""
    curves = {name: _precision(found) for name, found in matches.items()}
    # The benchmark averages over [IoU threshold, recall point, class], in this order.
    every = np.stack(list(curves.values()), axis=-1) if curves else np.empty((len(IOU_THRESHOLDS), 0))
    return CocoResult(
        map=_mean(every),
        map50=_mean(every[0]),
        map75=_mean(every[5]),
        per_class_map={name: _mean(curves[name]) if name in curves else None for name in class_names},
        per_class_map50={name: _mean(curves[name][0]) if name in curves else None for name in class_names},
    )


def _best_of_each_image(found: Flat) -> Flat:
    """The first MAX_DETECTIONS of each image, order kept."""
    by_image = np.argsort(found.images, kind="stable")
    images = found.images[by_image]
    place = np.arange(len(images)) - np.searchsorted(images, images)
    return found.rows(np.sort(by_image[place < MAX_DETECTIONS]))


def _match_class(found: Flat, truth: Flat, ignored: Bools) -> ClassMatches:
    """Match the detections of one class.

    Args:
        found: detections of the class, best first; truth: its objects; ignored: bool, a flag per object,
            not all True.
    """
    detection, object_ = pairs_of_equal_key(found.images, truth.images)
    shared = intersection(found.boxes[detection], truth.boxes[object_])
    touching = shared > 0
    detection, object_, shared = detection[touching], object_[touching], shared[touching]
    own, other = area(found.boxes)[detection], area(truth.boxes)[object_]
    overlap = shared / np.where(ignored[object_], own, own + other - shared)

    inside = np.zeros(len(found.images))
    np.maximum.at(inside, detection[ignored[object_]], overlap[ignored[object_]])
    wanted = ~ignored[object_] & (overlap >= IOU_THRESHOLDS[0])
    correct = _match(
        detection[wanted], object_[wanted], overlap[wanted], len(found.images), len(truth.images)
    )
    wrong = ~correct & (inside < IOU_THRESHOLDS[:, None])
    return ClassMatches(found.images, correct, wrong, truth.images[~ignored])


def _precision(found: ClassMatches) -> Floats:
    """Interpolated precision of one class, float64 [IoU thresholds, recall points]."""
    num_correct, num_wrong = found.correct.cumsum(axis=1), found.wrong.cumsum(axis=1)
    recall = num_correct / len(found.object_images)
    # The benchmark's guard against 0 / 0, kept for bit-identical results.
    precision = num_correct / (num_wrong + num_correct + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    rows = zip(envelope, recall, strict=True)
    return np.stack([best[np.searchsorted(reached, RECALL_POINTS)] for best, reached in rows])


def _match(detection: Ints, object_: Ints, iou: Floats, num_detections: int, num_objects: int) -> Bools:
    """Which detections are matched to an object, bool [IoU thresholds, detections].

    Gale-Shapley: in each round every unmatched detection proposes to the object with the largest IoU that
    has not rejected it, and each object keeps the best of the detections that have proposed to it.

    Args:
        detection, object_, iou: the pairs, within an image, that reach the lowest threshold. Detections are
            numbered best first.
    """
    # Thresholds are matched independently of each other: one copy of every object per threshold.
    threshold, pair = np.nonzero(iou >= IOU_THRESHOLDS[:, None])
    detection, object_, iou = detection[pair], object_[pair], iou[pair]
    # By the preferences of each detection: descending IoU, of objects with the same IoU the last first.
    order = np.lexsort((-object_, -iou, detection, threshold))
    asking = (threshold * num_detections + detection)[order]
    asked = (threshold * num_objects + object_)[order]
    no_detection = len(IOU_THRESHOLDS) * num_detections
    holder = np.full(len(IOU_THRESHOLDS) * num_objects, no_detection)
    # The first preference of each detection, and a flag for its last one.
    wish, is_last = np.flatnonzero(np.diff(asking, prepend=-1)), np.diff(asking, append=-1) != 0
    while True:
        # Of two detections that propose to the same object, the better one has the smaller number.
        np.minimum.at(holder, asked[wish], asking[wish])
        refused = holder[asked[wish]] != asking[wish]
        if not refused.any():
            break
        wish = (wish + refused)[~(refused & is_last[wish])]
    correct = np.zeros(no_detection, dtype=bool)
    correct[asking[wish]] = True
    return correct.reshape(len(IOU_THRESHOLDS), num_detections)


def _mean(values: Floats) -> float | None:
    return float(values.ravel().mean()) if values.size else None
