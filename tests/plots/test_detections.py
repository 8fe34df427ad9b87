"""The figures with boxes on images: what is drawn, and that errors are those of the confusion matrix."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ssd.metrics.outcomes import Outcomes, outcomes
from ssd.metrics.voc import judge_detections
from ssd.plots.detections import detection_figure
from ssd.plots.figures import class_colour, save_figure
from ssd.plots.pictures import label_figure, spread
from ssd.structures import Detections, Objects

NAMES = ["ant", "bee", r"a $\sum$ of $\bucks$"]  # mathtext would refuse the last
IDS = ["meadow", "empty $road", "a/" + "very-long-name-" * 5 + "end"]
FIRST, SECOND, THIRD, FOURTH = [5.0, 5, 20, 20], [30.0, 10, 55, 35], [2.0, 22, 12, 38], [14.0, 22, 26, 38]


def objects(boxes: list[list[float]], labels: list[int], ignored: list[bool]) -> Objects:
    return Objects(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels).long(), torch.tensor(ignored).bool()
    )


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels).long())


def images() -> dict[int, torch.Tensor]:
    shapes = (40, 60), (64, 32), (50, 50)
    return {i: torch.full((3, h, w), 90, dtype=torch.uint8) for i, (h, w) in enumerate(shapes)}


def split(score: float) -> Outcomes:
    """The first image has an ant found, a bee taken for an ant, an ant missed and an ignored third; the
    others have no objects, the last has a false alarm."""
    truth = [
        objects([FIRST, SECOND, THIRD, FOURTH], [1, 2, 1, 3], [False, False, False, True]),
        objects([], [], []),
        objects([], [], []),
    ]
    found = [
        detections([FIRST, SECOND, FOURTH], [0.75, 0.5, 0.25], [1, 1, 3]),
        detections([], [], []),
        detections([FIRST], [0.5], [2]),
    ]
    return outcomes(judge_detections(found, truth, 3), score)


def figure_of(score: float) -> Figure:
    return detection_figure(split(score), images(), IDS, NAMES)


def texts(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].texts]


def rectangles(figure: Figure, panel: int) -> list[Rectangle]:
    return [patch for patch in figure.axes[panel].patches if isinstance(patch, Rectangle)]


def boxes(figure: Figure, panel: int) -> list[Rectangle]:
    """The coloured outlines in an axes, without their white rims."""
    outlines = [patch for patch in rectangles(figure, panel) if not patch.get_fill()]
    return [patch for patch in outlines if to_rgb(patch.get_edgecolor()) != (1, 1, 1)]


def shaded(figure: Figure, panel: int) -> list[list[float]]:
    """The boxes that are filled with a colour."""
    return [patch.get_bbox().extents.tolist() for patch in rectangles(figure, panel) if patch.get_fill()]


def test_objects_are_left_and_detections_from_the_score_on_right_with_errors_shaded() -> None:
    figure = figure_of(0.25)
    assert texts(figure, 0) == ["ant", "bee (as ant)", "ant", f"{NAMES[2]} (ignored)"]
    assert texts(figure, 1) == [f"{NAMES[2]} 0.25 (ignored)", "ant 0.50 (is bee)", "ant 0.75"], "best on top"
    assert [outline.get_linestyle() for outline in boxes(figure, 0)] == ["-", "-", "-", "--"]
    assert [outline.get_linestyle() for outline in boxes(figure, 1)] == ["--", "-", "-"]
    assert (shaded(figure, 0), shaded(figure, 1), shaded(figure, 5)) == ([SECOND, THIRD], [SECOND], [FIRST])
    np.testing.assert_array_equal(boxes(figure, 1)[2].get_bbox().extents, FIRST)
    assert to_rgb(boxes(figure, 1)[2].get_edgecolor()) == to_rgb(class_colour(1))


def test_titles_have_the_image_s_name_and_its_account() -> None:
    titles = [axes.get_title() for axes in figure_of(0.5).axes]
    assert titles[:4] == ["meadow", "1 found, 1 as another class, 1 missed", "empty $road", "0 found"]
    assert titles[4].startswith("a/very") and titles[4].endswith("name-end") and len(titles[4]) < 40
    assert titles[5] == "0 found, 1 false alarm"


def test_where_nothing_is_drawn_words_say_so() -> None:
    figure = figure_of(0.6)
    assert texts(figure, 2) == ["no object"]
    assert texts(figure, 3) == texts(figure, 5) == ["no detection with a score of 0.60 or more"]
    nothing = detection_figure(split(0.5), {}, IDS, NAMES)
    assert texts(nothing, 0) == ["no image to show"]


def test_a_page_of_labels_shows_each_image_with_its_objects_and_name() -> None:
    truth = [objects([FIRST, SECOND], [1, 3], [False, True]), objects([], [], [])]
    figure = label_figure(list(images().values())[:2], truth, IDS[:2], NAMES)
    assert [axes.get_title() for axes in figure.axes] == IDS[:2]
    assert texts(figure, 0) == ["ant", f"{NAMES[2]} (ignored)"]
    assert texts(figure, 1) == ["no object"]


@pytest.mark.parametrize(("num_images", "num_pictures"), [(7, 3), (3, 7), (0, 4), (5, 0)])
def test_pictures_are_spread_over_the_split(num_images: int, num_pictures: int) -> None:
    chosen = spread(num_images, num_pictures)
    assert len(set(chosen)) == min(num_images, num_pictures)
    assert all(0 <= index < num_images for index in chosen)


def test_a_saved_figure_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        save_figure(figure_of(0.25), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    assert plt.get_fignums() == [], "pyplot is left alone"
