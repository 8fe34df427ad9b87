"""Which weights are the best, and how long since: validation scores, and the one of them that decides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ssd.metrics.coco import evaluate_coco
from ssd.metrics.voc import evaluate_voc
from ssd.structures import Detections, Objects


@dataclass(frozen=True)
class Scores:
    """The scores of a validation, 0 to 1; None without a validation or without an object in it.

    map50: VOC 2010 mAP at IoU 0.5; map: COCO mAP; f1: mean over classes of the best F1 at IoU 0.5.
    """

    map50: float | None = None
    map: float | None = None
    f1: float | None = None


def validation_scores(
    detections: Sequence[Detections], objects: Sequence[Objects], class_names: Sequence[str]
) -> Scores:
    """Score the detections of all images against their objects; item i of both belongs to image i.

    class_names: without background; label 1 is the first.
    """
    voc = evaluate_voc(detections, objects, len(class_names))
    return Scores(voc.map_area, evaluate_coco(detections, objects, class_names).map, voc.mean_f1)


def score(scores: Scores, select_by: Literal["map50", "map", "f1", "mean"]) -> float | None:
    """The score that decides; `mean` is the mean of all three, None if one of them is."""
    if select_by != "mean":
        chosen: float | None = getattr(scores, select_by)
        return chosen
    if scores.map50 is None or scores.map is None or scores.f1 is None:
        return None
    return (scores.map50 + scores.map + scores.f1) / 3


@dataclass
class Patience:
    """Counts the validations without gain.

    best: highest score so far; waited: validations since.
    """

    best: float = -math.inf
    waited: int = 0

    def observe(self, score: float) -> None:
        """Take note of a validation. An equal score is no gain."""
        if score > self.best:
            self.best, self.waited = score, 0
        else:
            self.waited += 1

    def exceeded(self, limit: int) -> bool:
        """Whether `limit` validations or more went by without gain; never for a limit of 0."""
        return 0 < limit <= self.waited
