"""The history of a training as a table that DVC plots and people read."""

from collections.abc import Sequence
from dataclasses import asdict, fields

from ssd.training.loop import Epoch


def history_tsv(history: Sequence[Epoch]) -> str:
    """One row an epoch, tab-separated, with a header; empty where nothing was measured."""
    names = [field.name for field in fields(Epoch)]
    rows = [[_cell(asdict(epoch)[name]) for name in names] for epoch in history]
    return "\n".join("\t".join(row) for row in [names, *rows]) + "\n"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
