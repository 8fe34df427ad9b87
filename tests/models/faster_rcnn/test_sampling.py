"""Which boxes are trained on: ignored objects, the sample, and its expectation."""

import pytest
import torch

from ssd.models.faster_rcnn import sampling
from ssd.models.faster_rcnn.sampling import assign, expected_sample, sample
from ssd.structures import Targets

BOXES = torch.tensor(
    [
        [0.1, 0.1, 0.4, 0.4],  # the first object itself
        [0.1, 0.1, 0.4, 0.6],  # an IoU of 0.6 with it
        [0.6, 0.6, 0.9, 0.9],  # the ignored object itself
        [0.0, 0.5, 0.1, 0.7],  # far from all
        [0.7, 0.05, 0.8, 0.4],  # the best that the second object has
    ]
)
TARGETS = Targets(
    torch.tensor([[[0.1, 0.1, 0.4, 0.4], [0.75, 0.1, 0.95, 0.3], [0.6, 0.6, 0.9, 0.9]]]),
    torch.tensor([[1, 2, 2]]),
    torch.tensor([[False, False, True]]),
)


def test_boxes_on_ignored_objects_and_with_a_middling_iou_are_neither() -> None:
    found = assign(TARGETS, BOXES, 0.7, 0.3)
    assert found.positive[0].tolist() == [True, False, False, False, False]
    assert found.negative[0].tolist() == [False, False, False, True, True]


def test_an_object_without_a_match_takes_its_best_boxes() -> None:
    found = assign(TARGETS, BOXES, 0.7, 0.3, low_quality=True)
    assert found.positive[0].tolist() == [True, False, False, False, True]
    assert found.objects[0, [0, 4]].tolist() == [0, 1]
    assert found.negative[0].tolist() == [False, False, False, True, False]


def test_an_object_that_no_box_touches_takes_none() -> None:
    far = Targets(torch.tensor([[[0.98, 0.98, 1.0, 1.0]]]), torch.tensor([[1]]), torch.tensor([[False]]))
    assert not assign(far, BOXES, 0.7, 0.3, low_quality=True).positive.any()


def test_without_objects_everything_is_background() -> None:
    nothing = Targets(
        torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.bool)
    )
    assert assign(nothing, BOXES, 0.7, 0.3, low_quality=True).negative.all()


def test_a_batch_with_many_objects_is_assigned_image_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    corners = torch.rand(3, 7, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=2).values
    objects, boxes = corners.flatten(2)[:, :2], corners.flatten(2)
    targets = Targets(objects, torch.ones(3, 2, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.bool))
    for own in (boxes, boxes[0]):
        whole = assign(targets, own, 0.5, 0.3, low_quality=True)
        monkeypatch.setattr(sampling, "MAX_PAIRS", 2 * 14)
        parts = assign(targets, own, 0.5, 0.3, low_quality=True)
        monkeypatch.undo()
        for name in ("objects", "positive", "negative"):
            assert torch.equal(getattr(parts, name), getattr(whole, name))
        assert whole.positive.any(1).all() and whole.negative.any()


def test_the_sample_has_its_size_and_the_expectation_is_its_mean() -> None:
    """In the first image positives abound, in the second they are few, in the third most is ignored."""
    numbers = [(40, 60), (5, 95), (1, 3)]
    positive, negative = torch.zeros(2, 3, 100, dtype=torch.bool).unbind()
    for row, (num_positive, num_negative) in enumerate(numbers):
        positive[row, :num_positive] = True
        negative[row, 100 - num_negative :] = True
    expected = expected_sample(positive, negative, 32, 0.25)
    keys = torch.rand(1000, 3, 100, generator=torch.Generator().manual_seed(0))
    drawn = torch.stack([sample(positive, negative, key, 32, 0.25) for key in keys])
    assert (drawn & positive).sum(2).unique(dim=0).tolist() == [[8, 5, 1]]
    assert (drawn & negative).sum(2).unique(dim=0).tolist() == [[24, 27, 3]]
    assert not (drawn & ~positive & ~negative).any()
    torch.testing.assert_close(expected.sum(1), torch.tensor([32.0, 32.0, 4.0]))
    torch.testing.assert_close(drawn.float().mean(0), expected, atol=0.06, rtol=0)
