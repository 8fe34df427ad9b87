"""Figures of training and evaluation: curves, and the colours of classes.

All functions return a `matplotlib.figure.Figure` and do not use pyplot, which keeps global state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ssd.files import replacing

# One colour per class, repeated cyclically. Built greedily: each colour after the first two has the largest
# distance (CIELAB) from all before it, in normal vision and in each kind of colour blindness (Machado et al.,
# 2009), among the colours that contrast with white, black and grey.
PALETTE = [
    "#0072b2",
    "#d55e00",
    "#5a2d2d",
    "#e1b4a5",
    "#8700ff",
    "#69d2ff",
    "#1e1e96",
    "#a5d269",
    "#b45a78",
    "#871e00",
    "#9678ff",
    "#96784b",
    "#78005a",
    "#ffa500",
    "#78b4c3",
    "#694be1",
    "#4b1e78",
    "#d200b4",
    "#78a53c",
    "#695a3c",
    "#b4b478",
    "#3ce12d",
    "#964b87",
    "#f069a5",
]
LINE_STYLES = ("-", "--", "-.", ":")
"""Of curves; with the colours 96 looks, see `curve_style`."""
TRAIN_COLOUR, VAL_COLOUR, MAP75_COLOUR = PALETTE[:3]

LEGEND_ROWS = 28  # per column of the legend of precision-recall curves
DOTS_PER_INCH = 110


def class_colour(label: int) -> str:
    """The colour of class `label` (1..C) in every figure."""
    return PALETTE[(label - 1) % len(PALETTE)]


def curve_style(label: int) -> str:
    """The line style of class `label` (1..C), which differs whenever the colour comes again."""
    # 24 is a multiple of 4: without the second term a colour would always have the same style.
    row = label - 1
    return LINE_STYLES[(row + row // len(PALETTE)) % len(LINE_STYLES)]


def text_colour(colour: str) -> str:
    """White or black, whichever is read more easily on `colour`."""
    red, green, blue = to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "black"


@dataclass(frozen=True)
class PrecisionRecall:
    """The curve of a class with objects: its label, from 1, name, AP, and points (recall, precision)."""

    label: int
    name: str
    ap: float
    points: Sequence[tuple[float, float]]


def precision_recall_figure(
    curves: Sequence[PrecisionRecall], mean_ap: float | None, iou_threshold: float
) -> Figure:
    """Pascal's precision over recall, one curve per class, the best class first in the legend.

    Args:
        curves: of the classes that have objects.
        mean_ap: for the title; None without any object.
        iou_threshold: of the curves.
    """
    columns = max(1, -(-len(curves) // LEGEND_ROWS))
    figure = Figure(figsize=(7 + 2.2 * columns, 6), layout="constrained")
    axes = figure.subplots()
    for curve in sorted(curves, key=lambda curve: (-curve.ap, curve.label)):
        style = curve_style(curve.label)
        recall, precision = np.array(curve.points, dtype=np.float64).reshape(-1, 2).T
        text = f"{curve.ap:.3f}  {curve.name}"
        axes.plot(recall, precision, style, color=class_colour(curve.label), linewidth=1.6, label=text)
    mean = "no objects" if mean_ap is None else f"mean AP (area under the curve) {mean_ap:.3f}"
    axes.set(
        title=f"Pascal VOC at IoU {iou_threshold:g}: {mean}",
        xlabel="recall",
        ylabel="precision (best at this recall or beyond)",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.02),
    )
    axes.grid(alpha=0.3)
    if curves:
        legend = axes.legend(
            title="AP  class",
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            borderaxespad=0,
            ncols=columns,
            fontsize=8.5,
            handlelength=3,
            frameon=False,
            alignment="left",
        )
        for entry in legend.get_texts():
            entry.set_parse_math(False)
    return figure


def history_figure(rows: Sequence[Mapping[str, float | None]]) -> Figure:
    """Losses, validation mAP@0.5 and mAP@0.75, and learning rate by epoch.

    Args:
        rows: one per epoch, with keys epoch, train_loss, train_loc, train_conf, val_loss, val_loc, val_conf,
            val_map50, val_map75, lr. Values are None where they were not measured, as val_* without
            validation.
    """
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    panels = figure.subplot_mosaic(
        [["loss", "loss", "loc", "loc", "conf", "conf"], ["map", "map", "map", "lr", "lr", "lr"]]
    )
    for part, title in (("loss", "total loss"), ("loc", "localisation loss"), ("conf", "confidence loss")):
        _draw_series(panels[part], rows, f"train_{part}", TRAIN_COLOUR, "train")
        _draw_series(panels[part], rows, f"val_{part}", VAL_COLOUR, "validation")
        panels[part].set_title(title)
        if rows:
            panels[part].legend(frameon=False)
    _draw_validation(panels["map"], rows)
    _draw_series(panels["lr"], rows, "lr", TRAIN_COLOUR, "lr")
    panels["lr"].set_title("learning rate")
    for axes in panels.values():
        axes.set_xlabel("epoch")
        highest = axes.dataLim.y1  # -inf without data
        axes.set_ylim(0, 1.05 * highest if highest > 0 else 1)
        axes.set_xlim(0.5, max(len(rows), 1) + 0.5)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _draw_validation(axes: Axes, rows: Sequence[Mapping[str, float | None]]) -> None:
    """mAP@0.5 and mAP@0.75 by epoch, with a line at the highest mAP@0.5."""
    _draw_series(axes, rows, "val_map50", VAL_COLOUR, "mAP@0.5")
    _draw_series(axes, rows, "val_map75", MAP75_COLOUR, "mAP@0.75")
    scores = [(row["val_map50"] or 0.0, row["epoch"] or 0) for row in rows if row["val_map50"] is not None]
    if scores:
        axes.legend(frameon=False)
        highest, epoch = max(scores, key=lambda pair: pair[0])
        axes.axvline(epoch, color="grey", linewidth=1, linestyle=":")
        axes.set_title(f"validation mAP (highest mAP@0.5 {highest:.3f}, epoch {epoch:g})")
    elif any(row["val_loss"] is not None for row in rows):
        axes.set_title("validation mAP: no object in val")
    else:
        axes.set_title("no validation")


def _draw_series(
    axes: Axes, rows: Sequence[Mapping[str, float | None]], key: str, colour: str, label: str
) -> None:
    """A line through the epochs that have a value, with markers where there are few."""
    points = [(row["epoch"], row[key]) for row in rows if row[key] is not None]
    if not points:
        return
    epochs, values = np.array(points, dtype=np.float64).T
    marker = "o" if len(points) <= 40 else ""
    # Not clipped: the axes hold all points, and a marker at 0 lies half below them.
    axes.plot(epochs, values, color=colour, label=label, marker=marker, markersize=3.5, clip_on=False)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a PNG, atomically; the same figure gives the same bytes (no date and no version inside)."""
    # Laid out once: a second layout starts from the first one's result and differs in some pixels.
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
