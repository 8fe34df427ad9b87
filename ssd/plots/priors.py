"""A figure of the shapes of priors over the sizes of ground truth boxes."""

from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from torch import Tensor

from ssd.models.kmeans_priors import PriorFit
from ssd.models.priors import PriorLevel
from ssd.plots.figures import PALETTE

MAX_DOTS = 5_000
DOT_COLOUR = "#9a9a9a"
MARKERS = "osD^vP"
MARK_AREA = 58.0
"""Of a mark, in points squared."""

TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def prior_figure(
    sizes: Tensor,
    before: Sequence[PriorLevel],
    after: Sequence[PriorLevel] | None,
    fit_before: PriorFit,
    fit_after: PriorFit | None,
) -> Figure:
    """Width and height of boxes, and the priors' shapes over them, one colour and marker per level.

    A shape that several levels have is a larger mark for each before the last, so that all are seen.

    Args:
        sizes: float [M, 2], (width, height), normalised; more than 5000 are subsampled at regular intervals.
        before: the paper's table, or, without `after`, the configured priors.
        after: the priors of a second panel, from k-means; None draws none.
        fit_before, fit_after: the fits in the titles; the latter is None where `after` is.
    """
    drawn = sizes[(sizes > 0).all(1)]
    drawn = drawn[:: -(-len(drawn) // MAX_DOTS) or 1]
    panels = [("" if after is None else "the paper's table: ", before, fit_before)]
    if after is not None and fit_after is not None:
        panels.append(("k-means: ", after, fit_after))
    figure = Figure(figsize=(6.4 * len(panels), 7), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    sides = [side for _, levels, _ in panels for level in levels for shape in level.shapes for side in shape]
    sides += drawn.flatten().tolist()
    for axes, (name, levels, fit) in zip(row, panels, strict=True):
        _draw_panel(axes, drawn, levels)
        _scale_axes(axes, min(sides) / 1.25, max(sides) * 1.25)
        axes.set_title(f"{name}{_line_of(fit)}", fontsize=10.5)
    return figure


def _draw_panel(axes: Axes, sizes: Tensor, levels: Sequence[PriorLevel]) -> None:
    widths, heights = sizes.cpu().T.numpy()
    axes.scatter(widths, heights, s=7, color=DOT_COLOUR, alpha=0.45, linewidths=0, label="boxes")
    to_come = Counter(shape for level in levels for shape in level.shapes)
    for number, level in enumerate(levels):
        xs, ys = zip(*level.shapes, strict=True)
        to_come.subtract(level.shapes)
        areas = [MARK_AREA * 2.0 ** to_come[shape] for shape in level.shapes]
        marker = MARKERS[number % len(MARKERS)]
        axes.scatter(
            xs,
            ys,
            s=areas,
            marker=marker,
            color=PALETTE[number % len(PALETTE)],
            edgecolors="black",
            linewidths=0.6,
            zorder=3,
            label=f"map {number + 1}: {len(xs)} per cell",
        )
    axes.grid(alpha=0.3)
    legend = axes.legend(loc="upper left", fontsize=8.5, framealpha=0.85)
    for mark in legend.legend_handles[1:]:
        if isinstance(mark, PathCollection):
            mark.set_sizes([MARK_AREA])


def _scale_axes(axes: Axes, smallest: float, largest: float) -> None:
    """Logarithmic: the same distance changes the IoU by the same amount at every size."""
    axes.set(xscale="log", yscale="log", xlabel="width, normalised", ylabel="height, normalised")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
        axis.set_ticks([], minor=True)
    axes.set(xlim=(smallest, largest), ylim=(smallest, largest), box_aspect=1)


def _line_of(fit: PriorFit) -> str:
    """The text of a fit for a title."""
    if fit.mean_best_iou is None or fit.recall50 is None:
        return f"{fit.num_priors} priors, no boxes"
    return (
        f"{fit.num_priors} priors\n"
        f"mean best IoU {fit.mean_best_iou:.3f}, IoU of 0.5 or more for {100 * fit.recall50:.1f} % of boxes"
    )
