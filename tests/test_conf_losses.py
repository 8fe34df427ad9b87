"""Focal loss against its formula, and which negatives are the hardest."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ssd.conf_losses import focal_loss, positives_and_hardest
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


@pytest.fixture(params=["looking", "blind"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of finding them: looking at the data, as on a CPU, and not."""
    if request.param == "blind":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def matches_of(objects: Tensor, ignored: Tensor) -> Matches:
    batch_size = len(objects)
    labels = torch.ones(batch_size, 1, dtype=torch.int64)
    return Matches(objects, ignored, Targets(torch.zeros(batch_size, 1, 4), labels, labels == 0))


def taught_by(logits: Tensor, matches: Matches, negatives: float, min_negatives: int) -> Tensor:
    """bool [B, P]."""
    selection = positives_and_hardest(logits, matches, negatives, min_negatives)
    counts = selection.take(torch.ones_like(matches.objects))
    if selection.mask is not None:
        counts = counts * selection.mask
    taught = torch.zeros(matches.objects.numel(), dtype=torch.int64).index_add(0, selection.rows, counts)
    assert taught.max() <= 1
    return taught.view_as(matches.objects) > 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("scale", [1.0, 200.0, 0.0])
def test_the_hardest_have_the_highest_background_error(scale: float) -> None:
    """At 200 the exponential of a logit overflows; at 0 all are the same, and any will do."""
    logits = random_logits(3, 50, 4) * scale
    objects = torch.full((3, 50), -1)
    objects[1, 10:14] = objects[2, 7] = 0
    ignored = (torch.rand(3, 50, generator=torch.Generator().manual_seed(1)) < 0.3) & (objects < 0)
    taught = taught_by(logits, matches_of(objects, ignored), 1.6, 2)
    assert taught[objects >= 0].all()
    negatives = taught & (objects < 0)
    assert negatives.sum(1).tolist() == [2, 7, 2]
    assert not (negatives & ignored).any()
    errors = F.cross_entropy(logits.transpose(1, 2), torch.zeros(3, 50).long(), reduction="none").clamp(
        max=80
    )
    for image in range(3):
        left_out = errors[image, ~taught[image] & ~ignored[image]]
        assert errors[image, negatives[image]].min() >= left_out.max() - 1e-4


@pytest.mark.usefixtures("way")
def test_where_negatives_are_few_all_are_taken() -> None:
    objects = torch.tensor([[0, -1, 0, -1], [-1, -1, -1, -1], [0, 0, 0, 0]])
    ignored = torch.tensor([[False, True, False, False], [True] * 4, [False] * 4])
    taught = taught_by(random_logits(3, 4, 3), matches_of(objects, ignored), 3.0, 9)
    assert torch.equal(taught, ~ignored)


@pytest.mark.usefixtures("way")
def test_without_positives_and_a_floor_nothing_is_taught() -> None:
    objects = torch.full((2, 4), -1)
    assert not taught_by(random_logits(2, 4, 3), matches_of(objects, objects >= 0), 3.0, 0).any()
