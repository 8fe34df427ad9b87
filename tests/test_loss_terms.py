"""The terms of the loss: focal loss against its formula, hard negatives, CIoU against torchvision's."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import complete_box_iou_loss

from ssd.boxes import decode
from ssd.loss import ciou_loss, focal_loss, hard_negatives
from ssd.matching import Matches
from ssd.structures import Targets


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.5, 0.5), (0.0, 0.9), (5.0, 0.1)])
def test_focal_loss_is_its_formula(gamma: float, alpha: float) -> None:
    logits, labels = random_logits(40, 4), torch.arange(40) % 4
    for error, row, label in zip(
        focal_loss(logits, labels, gamma, alpha), logits.double(), labels, strict=True
    ):
        p = float(row.exp()[label] / row.exp().sum())
        weight = alpha if label > 0 else 1 - alpha
        expected = -weight * (1 - p) ** gamma * torch.log(torch.tensor(p)).item()
        assert error.item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_focal_loss_without_focus_is_half_the_cross_entropy() -> None:
    logits, labels = random_logits(40, 4), torch.arange(40) % 4
    expected = F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1) / 2
    torch.testing.assert_close(focal_loss(logits, labels, 0.0, 0.5, label_smoothing=0.1), expected)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_focal_loss_has_a_finite_gradient_however_sure_the_network(
    gamma: float, label_smoothing: float
) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0], [0.0, 0.0]], requires_grad=True)
    error = focal_loss(logits, torch.tensor([0, 0, 1]), gamma, 0.25, label_smoothing)
    error.sum().backward()
    assert error.isfinite().all()
    assert logits.grad.isfinite().all()


def test_focal_gradient_is_that_of_finite_differences() -> None:
    logits = random_logits(6, 3).double().requires_grad_()
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, labels, 2.0, 0.25), logits)


def matches_of(objects: Tensor, ignored: Tensor) -> Matches:
    batch_size = len(objects)
    labels = torch.ones(batch_size, 1, dtype=torch.int64)
    return Matches(objects, ignored, Targets(torch.zeros(batch_size, 1, 4), labels, labels == 0))


@pytest.mark.parametrize("scale", [1.0, 200.0, 0.0])
def test_the_hardest_have_the_highest_background_error(scale: float) -> None:
    """At 200 the exponential of a logit overflows; at 0 all are the same, and any will do."""
    logits = random_logits(3, 50, 4) * scale
    objects = torch.full((3, 50), -1)
    objects[1, 10:14] = objects[2, 7] = 0
    ignored = (torch.rand(3, 50, generator=torch.Generator().manual_seed(1)) < 0.3) & (objects < 0)
    negatives = hard_negatives(logits, matches_of(objects, ignored), 1.6, 2)
    assert not (negatives & (objects >= 0)).any()
    assert negatives.sum(1).tolist() == [2, 7, 2]
    assert not (negatives & ignored).any()
    errors = F.cross_entropy(logits.transpose(1, 2), torch.zeros(3, 50).long(), reduction="none").clamp(
        max=80
    )
    for image in range(3):
        skipped = errors[image, ~negatives[image] & ~ignored[image] & (objects[image] < 0)]
        assert errors[image, negatives[image]].min() >= skipped.max() - 1e-4


def test_where_negatives_are_few_all_are_taken() -> None:
    objects = torch.tensor([[0, -1, 0, -1], [-1, -1, -1, -1], [0, 0, 0, 0]])
    ignored = torch.tensor([[False, True, False, False], [True] * 4, [False] * 4])
    negatives = hard_negatives(random_logits(3, 4, 3), matches_of(objects, ignored), 3.0, 9)
    assert torch.equal(negatives, (objects < 0) & ~ignored)


def test_without_positives_and_a_floor_there_are_none() -> None:
    objects = torch.full((2, 4), -1)
    assert not hard_negatives(random_logits(2, 4, 3), matches_of(objects, objects >= 0), 3.0, 0).any()


def plain_hardest(logits: Tensor, wanted: int, hardness: Callable[[list[float]], float]) -> set[int]:
    """The `wanted` priors of highest hardness, a function of the softmax, sorted one by one in float64."""
    p = logits.double().softmax(-1).tolist()
    return set(sorted(range(len(p)), key=lambda prior: -hardness(p[prior]))[:wanted])


@pytest.mark.parametrize("num_classes", [2, 5])
def test_negatives_by_loss_and_by_confidence_are_those_of_a_plain_sort(num_classes: int) -> None:
    """By confidence: log(1 + c_max / sum c), with c = exp(logit); by loss: -log of the background."""
    logits = random_logits(4, 60, num_classes)
    matches = matches_of(torch.full((4, 60), -1), torch.zeros(4, 60, dtype=torch.bool))
    by_loss = hard_negatives(logits, matches, 3.0, 20, "loss")
    by_confidence = hard_negatives(logits, matches, 3.0, 20, "confidence")
    for image in range(4):
        wanted = plain_hardest(logits[image], 20, lambda p: -math.log(p[0]))
        assert set(by_loss[image].nonzero().flatten().tolist()) == wanted
        wanted = plain_hardest(logits[image], 20, lambda p: math.log(1 + max(p[1:]) / sum(p)))
        assert set(by_confidence[image].nonzero().flatten().tolist()) == wanted
    assert torch.equal(by_loss, by_confidence) == (num_classes == 2)


def test_many_doubtful_classes_are_harder_by_loss_and_a_sure_one_by_confidence() -> None:
    logits = torch.tensor([[[0.4, 0.3, 0.3], [0.5, 0.5, 1e-9]]]).log()
    matches = matches_of(torch.full((1, 2), -1), torch.zeros(1, 2, dtype=torch.bool))
    assert hard_negatives(logits, matches, 3.0, 1, "loss").tolist() == [[True, False]]
    assert hard_negatives(logits, matches, 3.0, 1, "confidence").tolist() == [[False, True]]


def boxes_of(number: int, seed: int, smallest: float = 0.05) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=generator)
    return torch.cat([corner, corner + smallest + torch.rand(number, 2, generator=generator) / 2], -1)


def test_ciou_loss_and_gradient_are_torchvisions() -> None:
    gradients = []
    for function in (ciou_loss, complete_box_iou_loss):
        boxes = boxes_of(300, seed=0).requires_grad_()
        errors = function(boxes, boxes_of(300, seed=1))
        errors.sum().backward()
        gradients.append((errors.detach(), boxes.grad))
    torch.testing.assert_close(*(pair[0] for pair in gradients), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(*(pair[1] for pair in gradients), rtol=1e-3, atol=1e-3)


def test_the_same_box_costs_nothing_however_small() -> None:
    boxes = torch.cat([boxes_of(50, seed=0), boxes_of(50, seed=0, smallest=0.0) * 0.01])
    torch.testing.assert_close(ciou_loss(boxes, boxes), torch.zeros(100), atol=1e-4, rtol=0)


def test_boxes_apart_are_drawn_together() -> None:
    box = torch.tensor([[0.1, 0.1, 0.2, 0.2]], requires_grad=True)
    error = ciou_loss(box, torch.tensor([[0.7, 0.1, 0.8, 0.2]]))
    error.sum().backward()
    assert error.item() > 1
    assert box.grad[0, 0::2].sum() < 0
    torch.testing.assert_close(box.grad[0, 1::2].sum(), torch.zeros(()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("offset", [0.0, 1e-3, 50.0, -50.0, 1e4, -1e4])
@pytest.mark.parametrize(
    "target",
    [[0.5, 0.5, 0.5, 0.5], [0.2, 0.3, 0.2, 0.6], [0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 0.900001, 0.900001]],
)
def test_loss_and_gradient_stay_finite(offset: float, target: list[float]) -> None:
    loc = torch.full((1, 4), offset, requires_grad=True)
    error = ciou_loss(decode(loc, torch.tensor([[0.5, 0.5, 0.1, 0.1]])), torch.tensor([target]))
    error.sum().backward()
    assert error.isfinite().all()
    assert loc.grad.isfinite().all()


def test_empty_boxes_in_the_same_place_stay_finite() -> None:
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    error = ciou_loss(box, box.detach())
    error.sum().backward()
    assert error.isfinite().all()
    assert box.grad.isfinite().all()
