"""The page of augmented images: what is beside what, and what is drawn on it."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssd.loading.view import View
from ssd.plots.augmentation import AugmentedImage, Version, augmented_page, describe
from ssd.plots.figures import class_colour, save_figure
from ssd.structures import Objects

NAMES = ["ant", r"a $\sum$ of $\bucks$"]  # mathtext would refuse the last
CROP = View(10, 5, 40, 35)


def nothing() -> Objects:
    return Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool())


def row(height: int = 40, width: int = 60) -> AugmentedImage:
    """A source with an object and an ignored one, and a crop, a mosaic and the whole image."""
    boxes = torch.tensor([[5.0, 5, 20, 20], [30, 10, 55, 35]])
    objects = Objects(boxes, torch.tensor([1, 2]), torch.tensor([False, True]))
    picture = torch.full((3, 32, 32), 120, dtype=torch.uint8)
    first = Objects(boxes[:1] / 2, torch.tensor([2]), torch.tensor([False]))
    versions = [
        Version(picture, first, CROP),
        Version(picture, nothing(), None),
        Version(picture, nothing(), View(0, 0, width, height, flip=True)),
    ]
    return AugmentedImage(torch.full((3, height, width), 90, dtype=torch.uint8), objects, versions)


def outlines(axes: Axes) -> list[Rectangle]:
    """The outlines without their rims of white (boxes) or black (frames)."""
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)][1::2]


def page(num_rows: int = 2) -> Figure:
    return augmented_page([row() for _ in range(num_rows)], NAMES, "policy $x")


def test_every_row_has_the_source_and_its_versions() -> None:
    figure = page()
    assert [bool(axes.images) for axes in figure.axes] == [True] * 8
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert titles == ["source", "1: crop, 38% of the image", "2: mosaic", "3: whole image, mirrored"]
    assert figure.get_suptitle() == "policy $x"


def test_boxes_have_the_colour_of_their_class_and_ignored_ones_are_dashed() -> None:
    source, crop, mosaic, *_ = page().axes
    first, ignored, _ = outlines(source)
    assert to_rgb(first.get_edgecolor()) == to_rgb(class_colour(1))
    assert to_rgb(ignored.get_edgecolor()) == to_rgb(class_colour(2))
    assert (first.get_linestyle(), ignored.get_linestyle()) == ("-", "--")
    assert [to_rgb(box.get_edgecolor()) for box in outlines(crop)] == [to_rgb(class_colour(2))]
    assert outlines(mosaic) == []
    assert [text.get_text() for text in crop.texts] == [NAMES[1]]


def test_the_source_shows_where_crops_were_taken() -> None:
    source = page().axes[0]
    *_, frame = outlines(source)
    assert frame.get_bbox().extents.tolist() == [10, 5, 40, 35]
    assert [text.get_text() for text in source.texts] == ["ant", f"{NAMES[1]} (ignored)", "1"]


def test_frames_stay_inside_the_source() -> None:
    """A view that reaches outside is shown as far as it is in the picture, and not at all if that is all."""
    versions = [Version(v.image, v.objects, View(-20, 10, 30, 90)) for v in row().versions[:1]]
    versions.append(Version(versions[0].image, nothing(), View(-20, -30, 100, 90)))
    figure = augmented_page([AugmentedImage(row().image, nothing(), versions)], NAMES, "")
    [frame] = outlines(figure.axes[0])
    assert frame.get_bbox().extents.tolist() == [0, 10, 30, 40]


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (None, "mosaic"),
        (View(0, 0, 60, 40), "whole image"),
        (View(0, 0, 30, 40, flip=True), "crop, 50% of the image, mirrored"),
        (View(-30, -20, 90, 60), "zoomed out 2.0 times"),
        (View(-30, 10, 20, 60), "zoomed out and cropped"),
    ],
)
def test_a_view_is_described_in_a_few_words(view: View | None, words: str) -> None:
    assert describe(view, 40, 60) == words


@pytest.mark.parametrize("num_rows", [0, 3])
def test_a_page_has_the_same_bytes_each_time_and_leaves_pyplot_alone(num_rows: int, tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        save_figure(page(num_rows), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert plt.get_fignums() == []


def test_high_and_wide_sources_fit() -> None:
    figure = augmented_page([row(90, 20), row(20, 90)], NAMES, "shapes")
    assert [bool(axes.images) for axes in figure.axes] == [True] * 8
    figure.draw_without_rendering()
