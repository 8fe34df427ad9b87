"""Where a training stands between two steps, and what it has reached: history, scores, patience.

With the weights, a `Progress` is all that a checkpoint holds.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch

from ssd.metrics.coco import evaluate_coco
from ssd.metrics.voc import evaluate_voc
from ssd.structures import Detections, Objects


@dataclass(frozen=True)
class Epoch:
    """A row of the history; epochs count from 1.

    Losses are means over steps; val_* are None where there was no validation.

    lr: at the last step; skipped: steps left out because a loss or gradient was not finite; images_per_s:
    of training alone, over all processes; data_wait: share of the time in which the loop waited for the
    loader; seconds: of the whole epoch.
    """

    epoch: int
    lr: float
    train_loss: float
    train_loc: float
    train_conf: float
    val_loss: float | None
    val_loc: float | None
    val_conf: float | None
    val_map50: float | None
    val_map: float | None
    val_f1: float | None
    skipped: int
    images_per_s: float
    data_wait: float
    seconds: float


def history_tsv(history: Sequence[Epoch]) -> str:
    """One row an epoch, tab-separated, with a header; empty where nothing was measured."""
    names = [field.name for field in fields(Epoch)]
    rows = [[_cell(asdict(epoch)[name]) for name in names] for epoch in history]
    return "\n".join("\t".join(row) for row in [names, *rows]) + "\n"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


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


@dataclass
class Plateau:
    """Lowers the learning rate when the validation score stops rising.

    factor: what the learning rate is multiplied by; best: highest score so far; waited: validations since,
    or since the last lowering.
    """

    factor: float = 1.0
    best: float = -math.inf
    waited: int = 0

    def observe(self, score: float, patience: int, gamma: float) -> None:
        """Take note of a validation; after `patience` of them without gain, multiply the factor by gamma."""
        counter = Patience(self.best, self.waited)
        counter.observe(score)
        if counter.exceeded(patience):
            self.factor, counter.waited = self.factor * gamma, 0
        self.best, self.waited = counter.best, counter.waited


@dataclass
class Progress:
    """Counters, sums and scores of a training.

    epoch: epochs that have ended; batch: batches done of the next one; losses: sums of (total, loc, conf)
    over its steps; left_out: those of its steps that were left out, and skipped: of the whole training;
    trained_seconds, waited_seconds: spent in the steps of this epoch, and in waiting for their data.
    """

    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    left_out: int = 0
    skipped: int = 0
    trained_seconds: float = 0.0
    waited_seconds: float = 0.0
    finished: bool = False
    history: list[Epoch] = field(default_factory=list)
    plateau: Plateau = field(default_factory=Plateau)
    patience: Patience = field(default_factory=Patience)

    def start_epoch(self) -> None:
        """Count an epoch as ended and begin the next."""
        self.epoch += 1
        self.batch = self.left_out = 0
        self.losses = [0.0, 0.0, 0.0]
        self.trained_seconds = self.waited_seconds = 0.0

    def state(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Progress":
        """The inverse of `state`."""
        return cls(
            **{
                **state,
                "history": [Epoch(**row) for row in state["history"]],
                "plateau": Plateau(**state["plateau"]),
                "patience": Patience(**state["patience"]),
            }
        )


def random_state() -> dict[str, Any]:
    """The state of every global random generator, as plain values and tensors.

    The training draws from generators of its own (see `ssd.seeding`), but a library might not.
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every global random generator back to where `random_state` saw it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
