"""Confusion matrix, precision, recall and F1 of a detector at one score threshold: its operating point.

They agree with each other and with Pascal's curves because all of them count the same pairs, those of
`ssd/metrics/outcomes.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd.metrics.outcomes import outcomes
from ssd.metrics.pairs import Ints
from ssd.metrics.voc import JudgedDetections


@dataclass(frozen=True)
class Rates:
    """Precision, recall and F1 at a threshold; each None where it would divide by zero."""

    precision: float | None
    recall: float | None
    f1: float | None

    @staticmethod
    def of(num_correct: int, num_detections: int, num_objects: int) -> "Rates":
        """From true positives, all counted detections, and all objects that are not ignored."""
        return Rates(
            num_correct / num_detections if num_detections else None,
            num_correct / num_objects if num_objects else None,
            2 * num_correct / (num_detections + num_objects) if num_detections + num_objects else None,
        )


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """What a detector does with all detections from a score on.

    score: the threshold; matrix: int64 [C + 1, C + 1], rows are what is there (classes in label order, then
    background), columns what was detected (classes, then "missed"). A row's sum is the number of objects of
    the class, a column's that of its detections, without those of ignored objects; background in both is 0,
    because nothing counts the places without object and detection. overall: over all classes together;
    per_class: in label order.
    """

    score: float
    matrix: Ints
    overall: Rates
    per_class: tuple[Rates, ...]


def operating_point(judged: JudgedDetections, num_classes: int) -> OperatingPoint:
    """Matrix and rates at the score with the best F1 over all classes together."""
    score = best_score(judged)
    matrix = confusion_matrix(judged, num_classes, score)
    correct, found, objects = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    counts = zip(correct[:-1].tolist(), found[:-1].tolist(), objects[:-1].tolist(), strict=True)
    overall = Rates.of(int(correct.sum()), int(found[:-1].sum()), int(objects[:-1].sum()))
    return OperatingPoint(score, matrix, overall, tuple(Rates.of(*count) for count in counts))


def best_score(judged: JudgedDetections) -> float:
    """The score threshold with the best F1 over all classes together; 1 without a true positive."""
    scores = judged.scores[judged.counted]
    order = np.argsort(-scores, kind="stable")
    scores, correct = scores[order], judged.taken[judged.counted][order] >= 0
    if not correct.any():
        return 1.0
    num_objects = np.count_nonzero(~judged.ignored)
    f1 = 2 * np.cumsum(correct) / (np.arange(1, len(correct) + 1) + num_objects)
    # A threshold keeps all detections of its score.
    f1[np.append(scores[1:] == scores[:-1], False)] = -1
    return float(scores[f1.argmax()])


def confusion_matrix(judged: JudgedDetections, num_classes: int, score: float) -> Ints:
    """`OperatingPoint.matrix` of the detections with at least this score."""
    pairs = outcomes(judged, score)
    detected, actual = judged.found.labels - 1, judged.truth.labels - 1
    (hits, taken), (detections, objects) = pairs.correct, pairs.confused
    no_object = np.full(len(pairs.false_alarms), num_classes)
    not_detected = np.full(len(pairs.missed), num_classes)
    rows = [actual[taken], actual[objects], no_object, actual[pairs.missed]]
    columns = [detected[hits], detected[detections], detected[pairs.false_alarms], not_detected]
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    np.add.at(matrix, (np.concatenate(rows), np.concatenate(columns)), 1)
    return matrix


def matrix_rows(point: OperatingPoint, class_names: Sequence[str]) -> list[list[str]]:
    """The matrix as a table with a header: class names, then "background" as row and "missed" as column."""
    rows = zip([*class_names, "background"], point.matrix.tolist(), strict=True)
    return [["actual", *class_names, "missed"], *([name, *map(str, row)] for name, row in rows)]
