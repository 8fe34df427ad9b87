"""Pictures of a search: each trial once, by how it ended; and what can be said of importance."""

from pathlib import Path

from ssd.plots.figures import save_figure
from ssd.tuning.figures import Point, importance_figure, search_figure

POINTS = [
    Point(0, 0.3, is_pruned=False),
    Point(1, None, is_pruned=False),
    Point(2, 0.1, is_pruned=True),
    Point(3, 0.5, is_pruned=False),
    Point(4, 0.4, is_pruned=False),
]


def test_every_trial_is_shown_once_and_the_best_so_far_never_falls(tmp_path: Path) -> None:
    figure = search_figure(POINTS, "map50")
    (axes,) = figure.axes
    drawn = {str(line.get_label()): list(zip(*line.get_data(), strict=True)) for line in axes.lines}
    assert drawn == {
        "best so far": [(0, 0.3), (3, 0.5), (4, 0.5)],
        "trained to the end (3)": [(0, 0.3), (3, 0.5), (4, 0.4)],
        "pruned, best score until then (1)": [(2, 0.1)],
        "failed (1)": [(1, 0.1)],
    }
    assert axes.get_title() == "highest map50: 0.5000"
    save_figure(figure, tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


def test_a_search_without_a_value_is_said_to_have_none() -> None:
    assert (
        search_figure([Point(0, None, is_pruned=False)], "f1").axes[0].get_title() == "no trial has a value"
    )


def test_the_most_important_key_is_on_top() -> None:
    (axes,) = importance_figure({"train.lr": 0.7, "train.box_weight": 0.3}, 9).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["train.box_weight", "train.lr"]
    assert "9 trials" in axes.get_title()


def test_too_few_trials_are_said_to_be_too_few() -> None:
    assert "too few trials" in importance_figure(None, 2).axes[0].get_title()
