"""Drawn pictures: boxes where they are, in the classes' colours, on pictures of any size."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from ssd.inference.drawing import draw_detections
from ssd.plots.figures import class_colour
from ssd.structures import Detections


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    scores = torch.linspace(0.9, 0.3, len(boxes))
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4), scores, torch.arange(1, len(boxes) + 1)
    )


def is_colour(pixel: np.ndarray, label: int) -> bool:
    return bool(np.abs(pixel / 255 - to_rgb(class_colour(label))).max() < 0.01)


def test_a_box_is_outlined_in_its_colour_and_the_rest_is_kept() -> None:
    image = np.full((500, 600, 3), 128, np.uint8)
    drawn = draw_detections(image, detections((100, 200, 300, 400)), ["cat"])
    assert drawn.shape == image.shape
    for y, x in ((399, 200), (300, 100), (300, 299), (200, 299)):
        assert is_colour(drawn[y, x], 1), (y, x)
    assert (drawn[210:390, 110:290] == 128).all()
    assert (image == 128).all()


def test_labels_cover_each_other_only_where_there_is_no_room() -> None:
    image = np.full((500, 600, 3), 128, np.uint8)
    drawn = draw_detections(image, detections((100, 200, 300, 400), (102, 202, 300, 400)), ["cat", "dog"])
    for label in (1, 2):
        matches = np.abs(drawn / 255 - np.array(to_rgb(class_colour(label)))).max(-1) < 0.01
        assert matches.sum() > 800, label


def test_a_small_picture_is_enlarged_so_that_labels_are_readable() -> None:
    drawn = draw_detections(np.zeros((100, 120, 3), np.uint8), detections((10, 20, 60, 90)), ["cat"])
    assert drawn.shape == (400, 480, 3)
    assert is_colour(drawn[359, 100], 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 9)])
def test_any_size_is_drawn(size: tuple[int, int]) -> None:
    box = 0.0, 0.0, float(size[1]), float(size[0])
    middle = tuple(side / 2 for side in box[2:])
    found = detections(box, (*middle, *middle), box)
    assert draw_detections(np.zeros((*size, 3), np.uint8), found, ["cat", "日本", "ж" * 300]).ndim == 3
