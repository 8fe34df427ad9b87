"""Crops around objects that are shaped as the object's box (`object_shape: box`)."""

import math

import numpy as np
import pytest
import torch
from object_crops import AROUND, BOXES, HEIGHT, WIDTH, changed, objects_of, share_by_hand, views_of

from ssd.loading.augment import objects_in_view


def test_a_crop_shaped_as_the_box_is_a_multiple_of_its_width_and_height() -> None:
    """A tall person in the middle of a large image: the multiple is log-uniform, the aspect ratio fixed."""
    boxes, settings = torch.tensor([[500.0, 700.0, 537.0, 800.0]]), changed(AROUND, object_shape="box")
    views = views_of(boxes, settings, 1500, (1500, 1000))
    sizes = np.array([(view.x2 - view.x1, view.y2 - view.y1) for view in views])
    np.testing.assert_allclose(sizes[:, 0], 0.37 * sizes[:, 1], atol=0.7)
    logs = np.log(sizes[:, 1] / 100 / 1.5) / math.log(4)
    assert np.quantile(logs, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.05)
    assert min(share_by_hand(view, boxes[0].tolist()) for view in views) >= 0.8


def test_a_crop_shaped_as_the_box_ends_at_the_image() -> None:
    """A person of two thirds of the height: crops have the whole height, and still various widths."""
    boxes, settings = torch.tensor([[300.0, 50.0, 374.0, 250.0]]), changed(AROUND, object_shape="box")
    views = views_of(boxes, settings, 300, (300, 900))
    assert {view.y2 - view.y1 for view in views} == {300}
    widths = [view.x2 - view.x1 for view in views]
    assert 111 <= min(widths) < 120 and 430 < max(widths) <= 444


def test_persons_come_out_in_their_own_shape_or_as_wide_as_high() -> None:
    """The median aspect ratio of crops, and of a person of 0.37 in the square input of the network."""
    boxes = torch.tensor([[500.0, 700.0, 537.0, 800.0]])
    for shape, of_crops, in_input in (("free", 1.0, 0.37), ("box", 0.37, 1.0)):
        views = views_of(boxes, changed(AROUND, object_shape=shape, target_visible=1.0), 600, (1500, 1000))
        targets = [objects_in_view(objects_of(boxes), view, AROUND).boxes[0] for view in views]
        persons = [((x2 - x1) / (y2 - y1)).item() for x1, y1, x2, y2 in targets]
        crops = [(view.x2 - view.x1) / (view.y2 - view.y1) for view in views]
        assert np.median(crops) == pytest.approx(of_crops, rel=0.05)
        assert np.median(persons) == pytest.approx(in_input, rel=0.05)


def test_a_crop_shaped_as_the_box_depends_on_no_limit_of_the_other_crops() -> None:
    settings = changed(AROUND, object_shape="box")
    others = changed(settings, crop_area=0.9, crop_ratio=1.0)
    assert views_of(BOXES, settings, 50, (HEIGHT, WIDTH)) == views_of(BOXES, others, 50, (HEIGHT, WIDTH))
