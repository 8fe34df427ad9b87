"""The figure of priors among boxes: what it shows, with and without k-means, with and without boxes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from ssd.models.kmeans_priors import PriorFit
from ssd.models.priors import PriorLevel, paper_levels
from ssd.plots.figures import save_figure
from ssd.plots.priors import MAX_DOTS, prior_figure

FIT = PriorFit(8732, 300, 0.7057, 0.9633, (0.9, 1.0, 1.0))
BETTER = PriorFit(7716, 300, 0.8104, 0.9947, (0.98, 1.0, 1.0))
NO_BOXES = PriorFit(8732, 0, None, None, (None, None, None))
PAPER = paper_levels(6, 0.1, 0.2, 1.05)
CLUSTERS = [PriorLevel(((0.05, 0.06), (0.1, 0.07))), PriorLevel(((0.4, 0.3),))]
SIZES = torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05


def dots(axes: Axes) -> dict[str, np.ndarray]:
    """(width, height) of what is drawn, by its text in the legend."""
    drawn = [collection for collection in axes.collections if isinstance(collection, PathCollection)]
    return {str(points.get_label()): np.asarray(points.get_offsets()) for points in drawn}


def test_boxes_and_the_shapes_of_every_level_are_drawn() -> None:
    before, after = prior_figure(SIZES, PAPER, CLUSTERS, FIT, BETTER).axes
    assert list(dots(after)) == ["boxes", "map 1: 2 per cell", "map 2: 1 per cell"]
    np.testing.assert_allclose(dots(after)["boxes"], SIZES.numpy())
    np.testing.assert_allclose(dots(after)["map 1: 2 per cell"], CLUSTERS[0].shapes)
    assert [len(points) for points in dots(before).values()] == [300, 4, 6, 6, 6, 4, 4]


def test_titles_have_the_figures() -> None:
    before, after = prior_figure(SIZES, PAPER, CLUSTERS, FIT, BETTER).axes
    assert "8732 priors" in before.get_title() and "0.706" in before.get_title()
    assert "7716 priors" in after.get_title() and "99.5 %" in after.get_title()


def test_both_panels_have_the_same_scale_and_hold_all_that_is_drawn() -> None:
    panels = prior_figure(SIZES, PAPER, CLUSTERS, FIT, BETTER).axes
    low, high = panels[0].get_xlim()
    for axes in panels:
        assert axes.get_xlim() == axes.get_ylim() == (low, high)
        everything = np.concatenate(list(dots(axes).values()))
        assert low < everything.min() and everything.max() < high


def test_a_shape_of_several_levels_is_seen_of_each() -> None:
    """The level after one has it, too, where none fits better."""
    levels = [PriorLevel(((0.1, 0.1), (0.4, 0.4))), PriorLevel(((0.4, 0.4),)), PriorLevel(((0.4, 0.4),))]
    (axes,) = prior_figure(SIZES, levels, None, FIT, None).axes
    first, second, third = (marks.get_sizes() for marks in axes.collections[1:])
    assert first[1] > 1.5 * second[0] > 2 * third[0]
    assert first[0] == third[0], "the usual size"


def test_shapes_larger_than_the_image_are_at_ticks() -> None:
    (axes,) = prior_figure(SIZES, [PriorLevel(((0.1, 0.1), (6.0, 3.0)))], None, FIT, None).axes
    low, high = axes.get_xlim()
    shown = [label.get_text() for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert shown[-4:] == ["0.5", "1", "2", "5"]


def test_without_k_means_there_is_one_panel() -> None:
    (axes,) = prior_figure(SIZES, PAPER, None, FIT, None).axes
    assert axes.get_title().startswith("8732 priors\n")


def test_of_many_boxes_some_are_drawn() -> None:
    (axes,) = prior_figure(SIZES.repeat(50, 1), PAPER, None, FIT, None).axes
    assert MAX_DOTS / 2 < len(dots(axes)["boxes"]) <= MAX_DOTS


@pytest.mark.parametrize("sizes", [torch.zeros(0, 2), torch.zeros(3, 2)])
def test_without_boxes_there_are_the_priors_alone(sizes: torch.Tensor, tmp_path: Path) -> None:
    figure = prior_figure(sizes, PAPER, None, NO_BOXES, None)
    assert "no boxes" in figure.axes[0].get_title()
    save_figure(figure, tmp_path / "priors.png")


def test_same_figure_same_bytes(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        save_figure(prior_figure(SIZES, PAPER, CLUSTERS, FIT, BETTER), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
