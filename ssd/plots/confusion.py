"""A confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

NUMBERED_CLASSES = 20
"""With more classes the cells are too small for their counts."""


def confusion_figure(matrix: Sequence[Sequence[int]], class_names: Sequence[str], score: float) -> Figure:
    """Counts of what was there (rows) and what was detected (columns), coloured by their part of the row.

    Args:
        matrix: [C + 1, C + 1], classes in label order; the last row is background, the last column "missed".
        class_names: C names, without background.
        score: the threshold of the detections, for the title.
    """
    counts = np.array(matrix, dtype=np.int64)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 1.5 + 0.55 * min(len(counts), NUMBERED_CLASSES) + 0.16 * max(len(counts) - 21, 0))
    figure = Figure(figsize=(side + 1.5, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="part of the row", shrink=0.8)
    axes.set_title(f"Detections with a score of at least {score:.2f}, IoU 0.5", fontsize=10)
    ticks = np.arange(len(counts))
    size = 8.5 if len(class_names) <= NUMBERED_CLASSES else 5
    axes.set_xticks(ticks, [*class_names, "missed"], rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(ticks, [*class_names, "background"], fontsize=size, parse_math=False)
    axes.set(xlabel="detected as", ylabel="is")
    if len(class_names) <= NUMBERED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if parts[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    return figure
