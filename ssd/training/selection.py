"""Selection: scores of a validation, the score by which an epoch is judged, and what follows from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssd.metrics.coco import evaluate_coco
from ssd.metrics.voc import evaluate_voc
from ssd.params import SelectBy
from ssd.structures import Detections, Objects
from ssd.training.history import Epoch


@dataclass(frozen=True)
class Scores:
    """The scores of a validation, 0 to 1; None without a validation or without an object in it.

    map50, map75, map: COCO's mAP at IoU 0.5, at 0.75, and the mean over ten thresholds, as `evaluate` reports
    them; f1: mean over classes of F1 at IoU 0.5, by Pascal's matching, at `train.f1_score`.
    """

    map50: float | None = None
    map75: float | None = None
    map: float | None = None
    f1: float | None = None


def validation_scores(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    class_names: Sequence[str],
    f1_score: float = 0.0,
) -> Scores:
    """Score the detections of all images against their objects; item i of both belongs to image i.

    class_names: without background; label 1 is the first. f1_score: score threshold of F1; 0 takes the best
    one of each class.
    """
    coco = evaluate_coco(detections, objects, class_names)
    f1 = evaluate_voc(detections, objects, len(class_names), f1_score=f1_score).mean_f1
    return Scores(coco.map50, coco.map75, coco.map, f1)


MEASURES: dict[SelectBy, tuple[str, ...]] = {
    "map50": ("val_map50",),
    "map75": ("val_map75",),
    "map": ("val_map",),
    "f1": ("val_f1",),
    "mean": ("val_map50", "val_map", "val_f1"),
    "map50_f1": ("val_map50", "val_f1"),
    "val_loss": ("val_loss",),
    "train_loss": ("train_loss",),
}
"""What `train.select_by` names: the mean of these fields of an epoch."""


def measured(epoch: Epoch, select_by: SelectBy) -> float | None:
    """The value of an epoch by `train.select_by`.

    None if a part of it was not measured (see `Epoch`) or is not finite. The training loss is a mean over the
    steps of an epoch, while the weights change; the others are of the weights at its end.
    """
    values: list[float | None] = [getattr(epoch, name) for name in MEASURES[select_by]]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if len(known) == len(values) else None


def score(epoch: Epoch, select_by: SelectBy) -> float | None:
    """`measured`, as a number that is higher the better: losses become negative."""
    value = measured(epoch, select_by)
    return -value if value is not None and select_by in ("val_loss", "train_loss") else value


@dataclass
class Patience:
    """Early stopping: counts the validations without improvement, however small.

    Of trainings that are judged by their training loss, it counts epochs, whether validated or not; so does
    `Plateau`.

    best: highest score so far; waited: validations since.
    """

    best: float = -math.inf
    waited: int = 0

    def observe(self, score: float) -> None:
        """Record the score of a validation. An equal score is no improvement."""
        if score > self.best:
            self.best, self.waited = score, 0
        else:
            self.waited += 1

    def exceeded(self, limit: int) -> bool:
        """Whether there were `limit` validations or more without improvement; never for a limit of 0."""
        return 0 < limit <= self.waited


@dataclass
class Plateau:
    """Lowers the learning rate when the score stops rising, like torch's ReduceLROnPlateau.

    That is its modes max and, for losses, min, with a relative threshold, without cooldown or lowest rate.

    factor: the learning rate is multiplied by it; best: score of the last improvement; waited: validations
    since, or since the last lowering.
    """

    factor: float = 1.0
    best: float = -math.inf
    waited: int = 0

    def observe(self, score: float, patience: int, gamma: float, threshold: float) -> None:
        """Record a validation; after more than `patience` without improvement, multiply the factor by gamma.

        An improvement is a score above best * (1 + threshold), or a loss below best * (1 - threshold).
        """
        # A loss has a negative score; so has the state before the first validation.
        if score > self.best * (1 + math.copysign(threshold, self.best)):
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.waited > patience:
            self.factor, self.waited = self.factor * gamma, 0
