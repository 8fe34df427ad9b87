"""The history of a training: a row per epoch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Epoch:
    """A row of the history; epochs count from 1.

    Losses are means over steps, NaN where every step was skipped; val_* are None where there was no
    validation, its scores (see `Scores`) also where it had no object.

    lr: at the last step; skipped: skipped steps, whose loss or gradient was not finite; images_per_s: of
    training alone, over all processes; data_wait: fraction of the time in which the loop waited for data;
    seconds: of the whole epoch.
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
    val_map75: float | None
    val_map: float | None
    val_f1: float | None
    skipped: int
    images_per_s: float
    data_wait: float
    seconds: float


def history_tsv(history: Sequence[Epoch]) -> str:
    """One row per epoch, tab-separated, with a header; cells are empty where nothing was measured."""
    names = [field.name for field in fields(Epoch)]
    rows = [[_cell(asdict(epoch)[name]) for name in names] for epoch in history]
    return "\n".join("\t".join(row) for row in [names, *rows]) + "\n"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
