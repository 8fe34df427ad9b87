"""Annotations that a model contradicts, ranked by how much it does.

All kinds have one scale, so that they can be ranked together: how probable it is, by the model, that the
annotation is wrong, times how much of it is, from 0 to 1.

    missing     p (1 - o)       a detection where nothing is annotated; o: its largest overlap with an object
    class       p (1 - q)       a detection of another class on an object; q: the score of the object's own
    box         p (1 - IoU)     a detection of the object's class whose box is another one
    duplicate   IoU             two objects of a class in one place; only one can be there
    spurious    (1 - s) e / (e + u)  an object that the model does not see

p is the score of a detection that reaches the operating point (`ssd/metrics/confusion.py`). A detector gives
no probability that there is nothing, so that of a spurious object is estimated: e is the usual share of wrong
labels, u the share of the class's annotated objects that the model does not see. Where it misses a fifth of a
class, an object that it misses says little. Bayes' rule would give e / u, as u counts the spurious ones, too,
if all wrong labels were spurious, and the model saw none of them; e / (e + u) is lower, as most are wrong in
another way, and stays below 1 where u is small. s is the largest score times IoU of the detections on it.

Northcutt et al., "Confident Learning", JAIR 2021, rank labels by the model's own probabilities, too;
Tkachenko et al., "ObjectLab", 2023, do it for boxes. An object or detection is in one suspect at most,
but for the object of a duplicate that may stay, which can be in others.

A model that was trained on these annotations has learnt their errors: audit images that it has not seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ssd.metrics.confusion import best_score
from ssd.metrics.outcomes import pair_across_classes
from ssd.metrics.pairs import Flat, Floats, Ints, area, intersection, iou, pairs_of_equal_key
from ssd.metrics.scoring import VOC_IOU
from ssd.metrics.voc import JudgedDetections, judge_detections
from ssd.structures import Detections, Objects

Kind = Literal["missing", "class", "box", "duplicate", "spurious"]
Box = tuple[float, float, float, float]

SAME_BOX = 0.75
"""IoU from which a detection confirms the box of an object."""

SAME_PLACE = 0.1
"""IoU from which a false positive is another box for an unconfirmed object of its class."""

DUPLICATE = 0.7
"""IoU from which two objects of a class are one."""

WRONG_LABELS = 0.033
"""The mean share over ten public test sets: Northcutt et al., "Pervasive Label Errors", NeurIPS 2021."""


@dataclass(frozen=True)
class Suspect:
    """A suspicious annotation, or the lack of one.

    image: index; suspicion: 0 to 1; object: its place among the objects of the image, None if one is missing;
    other: of duplicates, the place of the one that may stay. What is annotated and what the model sees: boxes
    xyxy in pixels, labels 1..C, None where there is nothing; score: of the detection.
    """

    kind: Kind
    suspicion: float
    image: int
    object: int | None = None
    other: int | None = None
    annotated_box: Box | None = None
    annotated_label: int | None = None
    seen_box: Box | None = None
    seen_label: int | None = None
    score: float | None = None


def find_suspects(
    detections: Sequence[Detections], objects: Sequence[Objects], num_classes: int
) -> list[Suspect]:
    """All suspects, the most suspicious first, equal ones in the order of the images.

    Args:
        detections: of a low score threshold; item i of both belongs to image i.
        objects: ignored ones (difficult, crowd) are never suspects, and explain what is detected on them.
    """
    judged = judge_detections(detections, objects, num_classes, VOC_IOU)
    score = best_score(judged)
    confident = np.flatnonzero(judged.counted & (judged.scores >= score))
    hits, wrong = confident[judged.taken[confident] >= 0], confident[judged.taken[confident] < 0]
    confirmed = judged.taken[hits]
    open_ = np.setdiff1d(np.flatnonzero(~judged.ignored), confirmed)

    duplicates = _duplicates(judged, confirmed)
    open_ = np.setdiff1d(open_, duplicates.objects)
    classes = _classes(judged, wrong, open_)
    wrong, open_ = np.setdiff1d(wrong, classes.detections), np.setdiff1d(open_, classes.objects)
    # Of two confirmed objects in one place, one is to go, whatever its box.
    single = ~np.isin(confirmed, duplicates.objects)
    boxes, beside = _boxes(judged, hits[single], confirmed[single]), _beside(judged, wrong, open_)
    wrong, open_ = np.setdiff1d(wrong, beside.detections), np.setdiff1d(open_, beside.objects)
    missing, spurious = _missing(judged, wrong), _spurious(judged, open_)

    first = np.searchsorted(judged.truth.images, np.arange(len(objects)))
    every = (duplicates, classes, boxes, beside, missing, spurious)
    found = [suspect for group in every for suspect in _as_suspects(judged, group, first)]
    return sorted(found, key=lambda suspect: (-suspect.suspicion, suspect.image))


class _Group(NamedTuple):
    """Suspects of a kind: suspicions, and rows of `judged.found`, of `truth`, and of `truth`; -1 for none."""

    kind: Kind
    suspicions: Floats
    detections: Ints
    objects: Ints
    others: Ints


def _group(
    kind: Kind,
    suspicions: Floats,
    detections: Ints | None = None,
    objects: Ints | None = None,
    others: Ints | None = None,
) -> _Group:
    none = np.full(len(suspicions), -1)
    filled = (none if rows is None else rows for rows in (detections, objects, others))
    return _Group(kind, suspicions, *filled)


def _duplicates(judged: JudgedDetections, confirmed: Ints) -> _Group:
    """Of two objects in one place, the one that the model does not confirm; else the later one."""
    rows = np.flatnonzero(~judged.ignored)
    truth = judged.truth.rows(rows)
    one, other = pairs_of_equal_key(truth.images, truth.images)
    kept = (one < other) & (truth.labels[one] == truth.labels[other])
    one, other = one[kept], other[kept]
    overlap = iou(truth.boxes[one], truth.boxes[other])
    same = overlap >= DUPLICATE
    one, other, overlap = rows[one[same]], rows[other[same]], overlap[same]
    swap = np.isin(other, confirmed) & ~np.isin(one, confirmed)
    objects, others = np.where(swap, one, other), np.where(swap, other, one)
    # Of three in one place, the third has two pairs.
    objects, first = np.unique(objects, return_index=True)
    return _group("duplicate", overlap[first], objects=objects, others=others[first])


def _classes(judged: JudgedDetections, wrong: Ints, open_: Ints) -> _Group:
    detections, objects = pair_across_classes(judged, wrong, open_)
    own = np.zeros(len(judged.truth.labels))
    matched = judged.taken >= 0
    own[judged.taken[matched]] = judged.scores[matched]
    return _group("class", judged.scores[detections] * (1 - own[objects]), detections, objects)


def _boxes(judged: JudgedDetections, hits: Ints, confirmed: Ints) -> _Group:
    """Confirmed objects whose box is not quite the detection's."""
    overlap = iou(judged.found.boxes[hits], judged.truth.boxes[confirmed])
    loose = overlap < SAME_BOX
    hits, confirmed, overlap = hits[loose], confirmed[loose], overlap[loose]
    return _group("box", judged.scores[hits] * (1 - overlap), hits, confirmed)


def _beside(judged: JudgedDetections, wrong: Ints, open_: Ints) -> _Group:
    """Unconfirmed objects with a detection of their class beside them, too far off for a true positive."""
    found, truth = judged.found.rows(wrong), judged.truth.rows(open_)
    left, right = pairs_of_equal_key(found.images, truth.images)
    overlap = iou(found.boxes[left], truth.boxes[right])
    wanted = (overlap >= SAME_PLACE) & (found.labels[left] == truth.labels[right])
    order = np.flatnonzero(wanted)[np.argsort(-overlap[wanted], kind="stable")]
    # Each object with its nearest detection, then each detection with the nearest of those objects.
    for side in (right, left):
        order = order[np.sort(np.unique(side[order], return_index=True)[1])]
    detections, objects, overlap = wrong[left[order]], open_[right[order]], overlap[order]
    return _group("box", judged.scores[detections] * (1 - overlap), detections, objects)


def _missing(judged: JudgedDetections, wrong: Ints) -> _Group:
    """Detections where nothing is annotated; one on an object of any class is a second one of that."""
    found, truth = judged.found.rows(wrong), judged.truth
    left, right = pairs_of_equal_key(found.images, truth.images)
    a, b = found.boxes[left], truth.boxes[right]
    # As COCO compares with a crowd: any part of it may be detected.
    overlap = np.where(judged.ignored[right], intersection(a, b) / area(a), iou(a, b))
    largest = np.zeros(len(wrong))
    np.maximum.at(largest, left, overlap)
    wrong, largest = wrong[largest < VOC_IOU], largest[largest < VOC_IOU]
    return _group("missing", judged.scores[wrong] * (1 - largest), wrong)


def _spurious(judged: JudgedDetections, open_: Ints) -> _Group:
    found, truth = judged.found, judged.truth.rows(open_)
    left, right = pairs_of_equal_key(truth.images, found.images)
    support = np.zeros(len(open_))
    np.maximum.at(support, left, judged.scores[right] * iou(truth.boxes[left], found.boxes[right]))
    size = int(judged.truth.labels.max(initial=0)) + 1
    num_objects = np.bincount(judged.truth.labels[~judged.ignored], minlength=size)
    num_open = np.bincount(truth.labels, minlength=size)
    missed = (num_open / np.maximum(num_objects, 1))[truth.labels]
    return _group("spurious", WRONG_LABELS / (WRONG_LABELS + missed) * (1 - support), objects=open_)


def _as_suspects(judged: JudgedDetections, group: _Group, first: Ints) -> Iterator[Suspect]:
    """first: int64 [images], the row in `judged.truth` of each image's first object."""
    found, truth = judged.found, judged.truth
    for suspicion, detection, object_, other in zip(*(values.tolist() for values in group[1:]), strict=True):
        image = int(truth.images[object_] if object_ >= 0 else found.images[detection])
        has_object, has_detection, has_other = object_ >= 0, detection >= 0, other >= 0
        yield Suspect(
            group.kind,
            suspicion,
            image,
            object=int(object_ - first[image]) if has_object else None,
            other=int(other - first[image]) if has_other else None,
            annotated_box=_box(truth, object_) if has_object else None,
            annotated_label=int(truth.labels[object_]) if has_object else None,
            seen_box=_box(found, detection) if has_detection else None,
            seen_label=int(found.labels[detection]) if has_detection else None,
            score=float(judged.scores[detection]) if has_detection else None,
        )


def _box(flat: Flat, row: int) -> Box:
    x1, y1, x2, y2 = flat.boxes[row].tolist()
    return x1, y1, x2, y2
