"""Figures of a search for hyperparameters: the value of each trial, and which of them mattered.

Both functions return a `matplotlib.figure.Figure`, as those of `ssd.plots.figures`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssd.plots.figures import PALETTE

VALUE_COLOUR, BEST_COLOUR, PRUNED_COLOUR = PALETTE[:3]


@dataclass(frozen=True)
class Point:
    """A trial that has ended: its number, and its highest validation score; None where it failed."""

    number: int
    value: float | None
    is_pruned: bool


def search_figure(points: Sequence[Point], objective: str) -> Figure:
    """The value of every trial by its number, and the best so far; failed ones are at the lowest.

    Args:
        points: by number; the first is the start.
        objective: what the value is.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    complete = [
        (point.number, point.value) for point in points if point.value is not None and not point.is_pruned
    ]
    pruned = [(point.number, point.value) for point in points if point.value is not None and point.is_pruned]
    failed = [point.number for point in points if point.value is None]
    best = [max(value for _, value in complete[: end + 1]) for end in range(len(complete))]
    numbers = [number for number, _ in complete]
    axes.step(numbers, best, where="post", color=BEST_COLOUR, label="best so far")
    axes.plot(*_columns(complete), "o", color=VALUE_COLOUR, label=f"trained to the end ({len(complete)})")
    axes.plot(
        *_columns(pruned), "x", color=PRUNED_COLOUR, label=f"pruned, best score until then ({len(pruned)})"
    )
    if failed:
        lowest = min([value for _, value in (*complete, *pruned)], default=0.0)
        axes.plot(failed, [lowest] * len(failed), "v", color="grey", label=f"failed ({len(failed)})")
    title = f"highest {objective}: {max(best):.4f}" if best else "no trial has a value"
    axes.set(title=title, xlabel="trial (0: the values of params.yaml)", ylabel=f"validation {objective}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def importance_figure(importances: Mapping[str, float] | None, num_complete: int) -> Figure:
    """A bar for each key: the fraction of the spread of the values that it explains (PED-ANOVA).

    Args:
        importances: by key; None where too few trials have a value.
        num_complete: trials with a value.
    """
    found = sorted((importances or {}).items(), key=lambda item: item[1])
    figure = Figure(figsize=(8, 1.6 + 0.4 * max(len(found), 2)), layout="constrained")
    axes = figure.subplots()
    title = f"importance by {num_complete} trials that were trained to the end"
    axes.set(
        title=title if found else f"importance: too few trials have a value, or all the same ({num_complete})"
    )
    axes.barh([key for key, _ in found], [value for _, value in found], color=VALUE_COLOUR)
    axes.set(xlabel="fraction of the spread that is explained", xlim=(0, 1))
    axes.grid(alpha=0.3, axis="x")
    return figure


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [number for number, _ in points], [value for _, value in points]
