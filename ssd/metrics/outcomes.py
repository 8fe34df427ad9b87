"""What becomes of each detection from a score on, and of each object: what the confusion matrix counts.

A true positive is one of `judge_detections`. What is left is then paired across classes, which moves no
true positive: a false positive that overlaps an undetected object of another class is that class taken for
its own.
"""

from dataclasses import dataclass

import numpy as np

from ssd.metrics.pairs import Ints, iou, pairs_of_equal_key
from ssd.metrics.voc import JudgedDetections

Pairs = tuple[Ints, Ints]
"""Rows of `JudgedDetections.found` and of its `truth`, int64 [pairs] each."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The detections with at least `score` and the objects of a split; each is in one of these, once.

    correct: true positives; confused: detections of one class on objects of another; false_alarms: int64
    [N], all other detections, rows of `judged.found`; missed: int64 [M], all other objects, rows of
    `judged.truth`. Left out are ignored objects and what detects them.
    """

    judged: JudgedDetections
    score: float
    correct: Pairs
    confused: Pairs
    false_alarms: Ints
    missed: Ints

    def num_errors(self, num_images: int) -> Ints:
        """Errors of each image, int64 [num_images]: classes taken for others, false alarms, missed objects.

        Their sum is that of the confusion matrix without its diagonal.
        """
        found, truth = self.judged.found.images, self.judged.truth.images
        places = (found[self.confused[0]], found[self.false_alarms], truth[self.missed])
        return np.bincount(np.concatenate(places), minlength=num_images)


def outcomes(judged: JudgedDetections, score: float) -> Outcomes:
    """Pair the detections with at least this score with the objects."""
    kept = judged.counted & (judged.scores >= score)
    hits = np.flatnonzero(kept & (judged.taken >= 0))
    taken = judged.taken[hits]
    wrong = np.flatnonzero(kept & (judged.taken < 0))
    missed = np.setdiff1d(np.flatnonzero(~judged.ignored), taken)
    confused = pair_across_classes(judged, wrong, missed)
    return Outcomes(
        judged,
        score,
        correct=(hits, taken),
        confused=confused,
        false_alarms=np.setdiff1d(wrong, confused[0]),
        missed=np.setdiff1d(missed, confused[1]),
    )


def pair_across_classes(judged: JudgedDetections, wrong: Ints, missed: Ints) -> Pairs:
    """Pair false positives with missed objects of another class, the largest IoU first, each once.

    Args:
        wrong, missed: rows of `judged.found` and `judged.truth`.
    """
    found, truth = judged.found.rows(wrong), judged.truth.rows(missed)
    left, right = pairs_of_equal_key(found.images, truth.images)
    overlap = iou(found.boxes[left], truth.boxes[right])
    wanted = (overlap >= judged.iou_threshold) & (found.labels[left] != truth.labels[right])
    left, right, overlap = left[wanted], right[wanted], overlap[wanted]
    pairs: list[tuple[int, int]] = []
    free_left, free_right = np.ones(len(wrong), bool), np.ones(len(missed), bool)
    for pair in np.argsort(-overlap, kind="stable"):
        if free_left[left[pair]] and free_right[right[pair]]:
            free_left[left[pair]] = free_right[right[pair]] = False
            pairs.append((wrong[left[pair]], missed[right[pair]]))
    chosen = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return chosen[:, 0], chosen[:, 1]
