"""A figure of augmentation samples: each source image beside augmented versions of it.

It does not use pyplot, which keeps global state; `ssd.plots.figures.save_figure` writes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ssd.loading.view import View
from ssd.plots.pictures import draw_objects, show_image
from ssd.structures import Objects

PANEL_INCHES = 2.6  # width of one picture
TITLE_INCHES = 0.4


@dataclass(frozen=True)
class Version:
    """A network input: uint8 [3, S, S], its objects in pixels, and the view of its source, None for a
    mosaic."""

    image: Tensor
    objects: Objects
    view: View | None


@dataclass(frozen=True)
class AugmentedImage:
    """A source image, uint8 [3, H, W], its objects in pixels, and versions of it."""

    image: Tensor
    objects: Objects
    versions: Sequence[Version]


def augmented_page(rows: Sequence[AugmentedImage], class_names: Sequence[str], title: str) -> Figure:
    """One row per image: the source, and its versions, all with their boxes.

    Colours are those of the classes; ignored objects are dashed. Numbered white frames on the source mark
    the view of each version.

    Args:
        rows: with the same number of versions each.
        class_names: in label order.
        title: of the page.
    """
    num_columns = 1 + max((len(row.versions) for row in rows), default=0)
    # Versions are square; a source may be up to 1.5 times as high, which limits the empty space around them.
    heights = [min(max(row.image.shape[1] / row.image.shape[2], 1.0), 1.5) for row in rows] or [1.0]
    figure = Figure(
        figsize=(PANEL_INCHES * num_columns, (PANEL_INCHES + 0.25) * sum(heights) + TITLE_INCHES),
        layout="constrained",
    )
    figure.suptitle(title, fontsize=11, parse_math=False)
    grid = figure.subplots(len(heights), num_columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes in grid.flat:
        axes.set_axis_off()
    for panels, row in zip(grid, rows, strict=False):
        show_image(panels[0], row.image, "source")
        draw_objects(panels[0], row.objects, class_names)
        height, width = row.image.shape[1:]
        for number, (axes, version) in enumerate(zip(panels[1:], row.versions, strict=True), start=1):
            show_image(axes, version.image, f"{number}: {describe(version.view, height, width)}")
            draw_objects(axes, version.objects, class_names)
            if version.view is not None:
                _frame(panels[0], version.view, number)
    return figure


def describe(view: View | None, height: int, width: int) -> str:
    """The geometric augmentation that a view applies to an image of height x width, in a few words."""
    if view is None:
        return "mosaic"
    area = (view.x2 - view.x1) * (view.y2 - view.y1)
    if (view.x1, view.y1, view.x2, view.y2) == (0, 0, width, height):
        what = "whole image"
    elif view.x1 >= 0 and view.y1 >= 0 and view.x2 <= width and view.y2 <= height:
        what = f"crop, {area / (height * width):.0%} of the image"
    elif view.x1 <= 0 and view.y1 <= 0 and view.x2 >= width and view.y2 >= height:
        what = f"zoomed out {(area / (height * width)) ** 0.5:.1f} times"
    else:
        what = "zoomed out and cropped"
    return f"{what}, mirrored" if view.flip else what


def _frame(axes: Axes, view: View, number: int) -> None:
    """The edges of a view inside the picture, thin, with its number at the lower right corner."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    x1, y1, x2, y2 = max(view.x1, 0), max(view.y1, 0), min(view.x2, width), min(view.y2, height)
    if (x1, y1, x2, y2) == (0, 0, width, height):
        return
    for colour, points in (("black", 2.2), ("white", 1.0)):
        outline = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False)
        outline.set(edgecolor=colour, linewidth=points)
        axes.add_patch(outline)
    text = axes.annotate(
        str(number),
        (x2, y2),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=6.5,
        bbox={"facecolor": "white", "edgecolor": "black", "linewidth": 0.5, "pad": 1.2},
    )
    text.set_in_layout(False)
