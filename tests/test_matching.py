"""Matching: every object has a prior of its own, and batches equal single images."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.boxes import cxcywh_to_xyxy, pairwise_iou
from ssd.matching import Targets, claim_priors, match
from ssd.models.priors import make_priors, paper_levels

MAPS = [(8, 8), (4, 4), (2, 2), (1, 1)]
PRIORS = cxcywh_to_xyxy(make_priors(MAPS, paper_levels(4, 0.1, 0.2, 1.05)))


def targets_of(*images: list[list[float]], ignored: list[list[bool]] | None = None) -> Targets:
    """Targets from lists of boxes; labels count 1, 2, ... in each image."""
    num_objects = max(len(boxes) for boxes in images)
    targets = Targets(
        torch.zeros(len(images), num_objects, 4),
        torch.zeros(len(images), num_objects, dtype=torch.int64),
        torch.zeros(len(images), num_objects, dtype=torch.bool),
    )
    for row, boxes in enumerate(images):
        for column, box in enumerate(boxes):
            targets.boxes[row, column] = torch.tensor(box)
            targets.labels[row, column] = column + 1
            targets.ignored[row, column] = bool(ignored and ignored[row][column])
    return targets


box = st.tuples(*[st.floats(0, 0.9)] * 2, *[st.floats(0.01, 0.9)] * 2).map(
    lambda b: [b[0], b[1], min(b[0] + b[2], 1.0), min(b[1] + b[3], 1.0)]
)


@given(st.lists(box, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_object_gets_a_prior_of_its_own(boxes: list[list[float]]) -> None:
    matches = match(targets_of(boxes), PRIORS, 0.5)
    assert set(range(1, len(boxes) + 1)) <= set(matches.labels[0].tolist())


def test_equal_objects_get_different_priors() -> None:
    same = [0.3, 0.3, 0.52, 0.52]
    matches = match(targets_of([same] * 5), PRIORS, 0.5)
    assert {1, 2, 3, 4, 5} <= set(matches.labels[0].tolist())


def test_two_objects_on_one_best_prior_the_closer_one_has_it() -> None:
    prior = PRIORS[100]
    close, far = (prior + 0.001).tolist(), (prior + 0.02).tolist()
    iou = pairwise_iou(torch.tensor([far, close]), PRIORS)[None]
    first, second = claim_priors(iou, torch.ones(1, 2, dtype=torch.bool))[0].tolist()
    assert second == 100
    assert first == int(iou[0, 0].index_fill(0, torch.tensor([100]), -1).argmax())


def test_more_objects_than_priors_serves_as_many_as_there_are() -> None:
    objects = torch.rand(1, 5, 2)
    iou = pairwise_iou(torch.cat([objects, objects + 0.3], -1), PRIORS[:3])
    claimed = claim_priors(iou, torch.ones(1, 5, dtype=torch.bool))
    assert set(claimed[0].tolist()) == {0, 1, 2}


def test_matches_equal_a_plain_loop() -> None:
    """Reference: for each prior the object of highest IoU if it reaches the threshold, then claims on top."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        corner = torch.rand(4, 2, generator=generator) * 0.6
        boxes = torch.cat([corner, corner + 0.05 + 0.35 * torch.rand(4, 2, generator=generator)], 1)
        matches = match(targets_of(boxes.tolist()), PRIORS, 0.5)
        iou = pairwise_iou(boxes, PRIORS)
        claimed = claim_priors(iou[None], torch.ones(1, 4, dtype=torch.bool))[0].tolist()
        for prior in range(len(PRIORS)):
            best = int(iou[:, prior].argmax())
            expected = best + 1 if iou[best, prior] >= 0.5 else 0
            if prior in claimed:
                expected = claimed.index(prior) + 1
            assert matches.labels[0, prior] == expected
            if expected:
                torch.testing.assert_close(matches.boxes[0, prior], boxes[expected - 1])


def test_a_batch_equals_its_images() -> None:
    images = [[[0.1, 0.1, 0.4, 0.5]], [[0.2, 0.2, 0.9, 0.8], [0.5, 0.5, 0.6, 0.7], [0.5, 0.5, 0.6, 0.7]], []]
    together = match(targets_of(*images), PRIORS, 0.5)
    for row, boxes in enumerate(images):
        alone = match(targets_of(boxes), PRIORS, 0.5)
        assert torch.equal(together.labels[row], alone.labels[0])
        positive = alone.labels[0] > 0
        assert torch.equal(together.boxes[row, positive], alone.boxes[0, positive])


def test_an_image_without_objects_is_all_background() -> None:
    matches = match(targets_of([], []), PRIORS, 0.5)
    assert matches.labels.sum() == 0
    assert not matches.ignored.any()


def test_ignored_objects_are_neither_positive_nor_negative() -> None:
    target = PRIORS[30].clamp(0, 1).tolist()
    matches = match(targets_of([target], ignored=[[True]]), PRIORS, 0.5)
    assert matches.labels.sum() == 0
    assert matches.ignored[0, 30]
    assert torch.equal(matches.ignored[0], pairwise_iou(torch.tensor([target]), PRIORS)[0] >= 0.5)


def test_an_object_on_top_of_an_ignored_one_is_still_found() -> None:
    target = PRIORS[30].clamp(0, 1).tolist()
    matches = match(targets_of([target, target], ignored=[[True, False]]), PRIORS, 0.5)
    assert matches.labels[0, 30] == 2
    assert not matches.ignored[0, 30]
