"""Matching: every object has a prior of its own, batches equal single images; selections of priors."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssd.boxes import cxcywh_to_xyxy, pairwise_iou
from ssd.matching import Matches, Selection, assign_unique_priors, eager_on_cpu, match
from ssd.models.priors import make_priors, paper_levels
from ssd.structures import Targets

MAPS = [(8, 8), (4, 4), (2, 2), (1, 1)]
PRIORS = cxcywh_to_xyxy(make_priors(MAPS, paper_levels(4, 0.1, 0.2, 1.05)))


def find(targets: Targets) -> Matches:
    return match(targets, PRIORS, 0.5)


def labels_of(matches: Matches) -> Tensor:
    """int64 [B, P], 0 where background."""
    return matches.targets.labels.gather(1, matches.objects.clamp(min=0)) * matches.positive


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
degenerate = st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.sampled_from([0.0, 1e-6, 0.3])).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1]]
)
prior_itself = st.integers(0, len(PRIORS) - 1).map(lambda index: PRIORS[index].tolist())


@st.composite
def batches(draw: st.DrawFn) -> Targets:
    """One to four images of up to eight objects, some of them ignored, some the same, some without area."""
    any_box = box | degenerate | prior_itself | st.just([0.3, 0.3, 0.52, 0.52])
    images = draw(st.lists(st.lists(any_box, max_size=8), min_size=1, max_size=4))
    flags = [
        draw(st.lists(st.sampled_from([False, False, True]), min_size=len(i), max_size=len(i)))
        for i in images
    ]
    return targets_of(*images, ignored=flags)


@given(batches())
@example(targets_of([[0.0, 0.0, 0.5, 0.5]] * 5 + [[0.0, 0.0, 0.5, 0.375]]))
@settings(max_examples=200, deadline=None)
def test_own_priors_are_those_of_a_greedy_choice(targets: Targets) -> None:
    """Pairs of an object and a prior by falling IoU, each taken if both are free.

    Of equal IoUs any may come first, so what is checked is what every such order gives: an object would
    rather have another prior only where that one has an object of at least the same IoU.
    """
    wanted = (targets.labels > 0) & ~targets.ignored
    iou = pairwise_iou(targets.boxes, PRIORS).masked_fill(~wanted[..., None], -1)
    assigned = assign_unique_priors(iou, wanted)
    for image in range(len(iou)):
        rows = wanted[image].nonzero()[:, 0]
        served = assigned[image][rows]
        assert len(set(served.tolist())) == len(served), "no prior twice"
        own = iou[image, rows, served]
        owners = torch.full((len(PRIORS),), -1.0).index_put((served,), own)
        assert (iou[image, rows] <= torch.maximum(own[:, None], owners)).all()


@given(st.lists(box, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_object_gets_a_prior_of_its_own(boxes: list[list[float]]) -> None:
    assert set(range(len(boxes))) <= set(find(targets_of(boxes)).objects[0].tolist())


def test_equal_objects_get_different_priors() -> None:
    matches = find(targets_of([[0.3, 0.3, 0.52, 0.52]] * 5))
    assert {0, 1, 2, 3, 4} <= set(matches.objects[0].tolist())


def test_two_objects_on_one_best_prior_the_closer_one_has_it() -> None:
    prior = PRIORS[100]
    close, far = (prior + 0.001).tolist(), (prior + 0.02).tolist()
    iou = pairwise_iou(torch.tensor([far, close]), PRIORS)[None]
    first, second = assign_unique_priors(iou, torch.ones(1, 2, dtype=torch.bool))[0].tolist()
    assert second == 100
    assert first == int(iou[0, 0].index_fill(0, torch.tensor([100]), -1).argmax())


def test_of_more_objects_than_priors_as_many_are_served_as_there_are() -> None:
    corner = torch.rand(1, 5, 2, generator=torch.Generator().manual_seed(0)) * 0.2
    boxes = torch.cat([corner, corner + 0.3], -1)
    claimed = assign_unique_priors(pairwise_iou(boxes, PRIORS[:3]), torch.ones(1, 5, dtype=torch.bool))
    assert sorted(claimed[0].tolist()) == [0, 1, 2, 3, 3]
    targets = Targets(boxes, torch.ones(1, 5, dtype=torch.int64), torch.zeros(1, 5, dtype=torch.bool))
    matches = match(targets, PRIORS[:3], 0.5)
    assert len(set(matches.objects[0].tolist())) == 3


def test_matches_equal_a_plain_loop() -> None:
    """Reference: for each prior the object of highest IoU if it reaches the threshold, then claims on top."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        corner = torch.rand(4, 2, generator=generator) * 0.6
        boxes = torch.cat([corner, corner + 0.05 + 0.35 * torch.rand(4, 2, generator=generator)], 1)
        matches = find(targets_of(boxes.tolist()))
        iou = pairwise_iou(boxes, PRIORS)
        claimed = assign_unique_priors(iou[None], torch.ones(1, 4, dtype=torch.bool))[0].tolist()
        for prior in range(len(PRIORS)):
            best = int(iou[:, prior].argmax())
            expected = best if iou[best, prior] >= 0.5 else -1
            if prior in claimed:
                expected = claimed.index(prior)
            assert matches.objects[0, prior] == expected


def test_a_batch_equals_its_images() -> None:
    images = [[[0.1, 0.1, 0.4, 0.5]], [[0.2, 0.2, 0.9, 0.8], [0.5, 0.5, 0.6, 0.7], [0.5, 0.5, 0.6, 0.7]], []]
    together = find(targets_of(*images))
    for row, boxes in enumerate(images):
        assert torch.equal(together.objects[row], find(targets_of(boxes)).objects[0])


def test_rows_are_the_images_of_the_batch() -> None:
    matches = find(targets_of([[0.1, 0.1, 0.4, 0.5]], [], [[0.2, 0.2, 0.9, 0.8]]))
    part = matches.rows(slice(1, 3))
    assert torch.equal(part.objects, matches.objects[1:])
    assert torch.equal(part.targets.labels, matches.targets.labels[1:])
    assert part.num_positives == matches.num_positives - matches.rows(slice(0, 1)).num_positives
    assert part.num_positives == (matches.objects[2] >= 0).sum() > 0


def test_images_without_objects_are_all_background() -> None:
    matches = find(targets_of([], []))
    assert matches.objects.shape == (2, len(PRIORS))
    assert matches.num_positives == 0
    assert labels_of(matches).sum() == 0
    assert not matches.ignored.any()


def test_ignored_objects_are_neither_positive_nor_negative() -> None:
    target = PRIORS[30].clamp(0, 1).tolist()
    matches = find(targets_of([target], ignored=[[True]]))
    assert matches.num_positives == 0
    assert matches.ignored[0, 30]
    assert torch.equal(matches.ignored[0], pairwise_iou(torch.tensor([target]), PRIORS)[0] >= 0.5)


def test_an_object_on_top_of_an_ignored_one_is_still_found() -> None:
    target = PRIORS[30].clamp(0, 1).tolist()
    matches = find(targets_of([target, target], ignored=[[True, False]]))
    assert labels_of(matches)[0, 30] == 2
    assert not matches.ignored[0, 30]


MASK = torch.tensor([[True, False, True, False], [False, False, True, True]])


def test_on_a_cpu_what_is_selected_is_gathered() -> None:
    selection = Selection.of(MASK)
    assert selection.images.tolist() == [0, 0, 1, 1]
    assert selection.priors.tolist() == [0, 2, 2, 3]
    values = torch.arange(16).view(2, 4, 2)
    assert torch.equal(selection.take(values), values[MASK])
    assert selection.sum(torch.ones(4)) == 4


def test_a_compiler_sees_shapes_that_do_not_depend_on_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not eager_on_cpu(MASK)
    selection = Selection.of(MASK)
    values = torch.arange(16.0).view(2, 4, 2)
    assert torch.equal(selection.take(values), values.flatten(0, 1))
    assert selection.sum(selection.take(values)[:, 0]) == values[MASK][:, 0].sum()


def test_what_is_not_selected_may_be_no_number_and_has_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    values = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    selection = Selection.of(torch.tensor([[True, False]]))
    total = selection.sum(selection.take(values))
    total.backward()
    assert total == 1
    assert values.grad.tolist() == [[1, 0]]


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_trace_does_not_look() -> None:
    seen = []
    torch.jit.trace(lambda x: (seen.append(eager_on_cpu(x)), x)[1], MASK, check_trace=False)
    assert seen == [False]
    assert eager_on_cpu(MASK)
