"""Average precision as the COCO benchmark defines it: Lin et al., "Microsoft COCO", ECCV 2014.

The benchmark's own code walks through the detections of each class and image, best first, once for each of
ten IoU thresholds. A detection takes the object, among those that are free, with the largest IoU; it is
    a true positive  if that IoU reaches the threshold,
    not counted      otherwise, if the share of it that lies inside an ignored object reaches the threshold,
    a false positive otherwise.
Here all images and thresholds of a class are matched at once. "In turn, each takes the best that is left"
is the one stable matching there is when all objects prefer the better detection (Gale and Shapley, "College
admissions and the stability of marriage", 1962), and their proposals need as many rounds as an image has
rivals for an object, not as many as it has detections.

Equal scores, equal IoUs and every sum are taken in the order of the benchmark's code, so that the figures
are its figures to the last bit.
"""

from collections.abc import Sequence
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
    """COCO's figures; None where there is no object to find.

    map: mean over classes and the IoU thresholds 0.50, 0.55, ... 0.95; map50, map75: at one threshold;
    per_class_map, per_class_map50: the same for each class name, in label order.
    """

    map: float | None
    map50: float | None
    map75: float | None
    per_class_map: dict[str, float | None]
    per_class_map50: dict[str, float | None]


def evaluate_coco(
    detections: Sequence[Detections], objects: Sequence[Objects], class_names: Sequence[str]
) -> CocoResult:
    """Score the detections of all images against their objects; item i of both belongs to image i.

    Ignored objects are what COCO calls a crowd: a detection of them is neither right nor wrong. They are
    the objects that the VOC figures ignore too, but COCO matches them by the share of the detection inside
    them instead of by IoU, and lets each take any number of detections.

    The 100 best detections of a class in an image count, as in the benchmark's code; the results with
    fewer (1, 10) are recalls, not given here.

    Args:
        class_names: without background; label 1 is the first.

    Raises:
        ValueError: the two sequences differ in length, or a label has no name.
    """
    if len(detections) != len(objects):
        raise ValueError(f"{len(detections)} images with detections, but {len(objects)} with objects")
    truth = flat_boxes(objects, len(class_names))
    ignored = join([item.ignored for item in objects]).astype(bool)
    found = flat_boxes(detections, len(class_names))
    # lexsort is stable: labels together, best score first, ties as they came.
    found = found.rows(np.lexsort((-join([item.scores for item in detections]), found.labels)))
    bounds = np.searchsorted(found.labels, np.arange(1, len(class_names) + 2))

    curves: dict[str, Floats] = {}
    for label, name in enumerate(class_names, start=1):
        of_class = truth.labels == label
        if not ignored[of_class].all():
            candidates = _best_of_each_image(found.rows(slice(bounds[label - 1], bounds[label])))
            curves[name] = _precision(candidates, truth.rows(of_class), ignored[of_class])

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


def _precision(found: Flat, truth: Flat, ignored: Bools) -> Floats:
    """Interpolated precision of one class, float64 [IoU thresholds, recall points].

    Args:
        found: detections of the class, best first; truth: its objects; ignored: bool, a flag an object,
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

    num_correct, num_wrong = correct.cumsum(axis=1), wrong.cumsum(axis=1)
    recall = num_correct / np.count_nonzero(~ignored)
    # The benchmark's guard against 0 / 0, kept because it moves the last bit.
    precision = num_correct / (num_wrong + num_correct + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    rows = zip(envelope, recall, strict=True)
    return np.stack([best[np.searchsorted(reached, RECALL_POINTS)] for best, reached in rows])


def _match(detection: Ints, object_: Ints, iou: Floats, num_detections: int, num_objects: int) -> Bools:
    """Which detections find an object of their own, bool [IoU thresholds, detections].

    In each round every detection that has none asks for the best object that has not turned it down, and
    each object keeps the best detection that has asked.

    Args:
        detection, object_, iou: the pairs that reach the lowest threshold; a detection and an object of
            two images are never a pair. Detections are numbered best first.
    """
    # An object at one threshold has nothing to do with itself at another: each becomes ten.
    threshold, pair = np.nonzero(iou >= IOU_THRESHOLDS[:, None])
    detection, object_, iou = detection[pair], object_[pair], iou[pair]
    # By the wishes of each detection; of objects with the same IoU it wants the last.
    order = np.lexsort((-object_, -iou, detection, threshold))
    asking = (threshold * num_detections + detection)[order]
    asked = (threshold * num_objects + object_)[order]
    nobody = len(IOU_THRESHOLDS) * num_detections
    holder = np.full(len(IOU_THRESHOLDS) * num_objects, nobody)
    # The first wish of each, and which are the last ones.
    wish, is_last = np.flatnonzero(np.diff(asking, prepend=-1)), np.diff(asking, append=-1) != 0
    while True:
        # Of two that ask for the same the better one has the smaller number.
        np.minimum.at(holder, asked[wish], asking[wish])
        refused = holder[asked[wish]] != asking[wish]
        if not refused.any():
            break
        wish = (wish + refused)[~(refused & is_last[wish])]
    correct = np.zeros(nobody, dtype=bool)
    correct[asking[wish]] = True
    return correct.reshape(len(IOU_THRESHOLDS), num_detections)


def _mean(values: Floats) -> float | None:
    return float(values.ravel().mean()) if values.size else None
