"""MultiBox loss against a plain reference, and what it must do at its edges."""

import pytest
import torch
from torch.nn import functional as F

from ssd.boxes import cxcywh_to_xyxy, encode, xyxy_to_cxcywh
from ssd.loss import MultiBoxLoss
from ssd.matching import Targets, match
from ssd.models.priors import make_priors, paper_levels

PRIORS = make_priors([(8, 8), (4, 4), (2, 2), (1, 1)], paper_levels(4, 0.1, 0.2, 1.05))
NUM_CLASSES = 4


def random_case(
    batch_size: int, num_objects: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(batch_size, len(PRIORS), 4, generator=generator)
    logits = torch.randn(batch_size, len(PRIORS), NUM_CLASSES, generator=generator)
    corner = torch.rand(batch_size, num_objects, 2, generator=generator) * 0.6
    boxes = torch.cat([corner, corner + 0.1 + 0.3 * torch.rand(corner.shape, generator=generator)], -1)
    labels = torch.randint(1, NUM_CLASSES, (batch_size, num_objects), generator=generator)
    labels[1:, num_objects // 2 :] = 0  # padding
    return loc, logits, Targets(boxes, labels, torch.zeros_like(labels, dtype=torch.bool))


def reference(loc: torch.Tensor, logits: torch.Tensor, targets: Targets, floor: int) -> tuple[float, float]:
    """Equation 1 of the paper, image by image and prior by prior."""
    matches = match(targets, cxcywh_to_xyxy(PRIORS), 0.5)
    loc_sum, conf_sum, num_positives = 0.0, 0.0, 0
    for image in range(len(loc)):
        labels = matches.labels[image]
        positive = labels > 0
        offsets = encode(matches.boxes[image], PRIORS)
        loc_sum += F.smooth_l1_loss(loc[image][positive], offsets[positive], reduction="sum").item()
        errors = F.cross_entropy(logits[image], labels, reduction="none")
        negatives = sorted(errors[~positive].tolist(), reverse=True)
        conf_sum += errors[positive].sum().item()
        conf_sum += sum(negatives[: max(3 * int(positive.sum()), floor)])
        num_positives += int(positive.sum())
    return loc_sum / max(num_positives, 1), conf_sum / max(num_positives, 1)


@pytest.mark.parametrize("num_objects", [1, 5, 12])
def test_agrees_with_the_reference(num_objects: int) -> None:
    loc, logits, targets = random_case(4, num_objects)
    losses = MultiBoxLoss(PRIORS, 0.5, 3.0, 8)(loc, logits, targets)
    expected_loc, expected_conf = reference(loc, logits, targets, 8)
    assert losses.loc.item() == pytest.approx(expected_loc, rel=1e-4)
    assert losses.conf.item() == pytest.approx(expected_conf, rel=1e-4)
    assert losses.total.item() == pytest.approx(expected_loc + expected_conf, rel=1e-4)


def test_the_right_answer_costs_next_to_nothing() -> None:
    _, logits, targets = random_case(2, 3)
    matches = match(targets, cxcywh_to_xyxy(PRIORS), 0.5)
    loc = encode(matches.boxes, PRIORS)
    logits = F.one_hot(matches.labels, NUM_CLASSES).float() * 50
    assert MultiBoxLoss(PRIORS, 0.5, 3.0, 8)(loc, logits, targets).total.item() < 1e-4


def test_images_without_objects_teach() -> None:
    loc, logits, _ = random_case(2, 1)
    logits.requires_grad_()
    empty = torch.zeros(2, 0)
    targets = Targets(torch.zeros(2, 0, 4), empty.long(), empty.bool())
    losses = MultiBoxLoss(PRIORS, 0.5, 3.0, min_negatives=8)(loc, logits, targets)
    losses.total.backward()
    taught = (logits.grad.abs().sum(-1) > 0).sum(1)
    assert losses.loc.item() == 0
    assert taught.tolist() == [8, 8]


def test_exactly_three_negatives_a_positive_have_a_gradient() -> None:
    loc, logits, targets = random_case(3, 4)
    logits.requires_grad_()
    criterion = MultiBoxLoss(PRIORS, 0.5, 3.0, min_negatives=0)
    criterion(loc, logits, targets).total.backward()
    positive = match(targets, criterion.priors_xyxy, 0.5).labels > 0
    taught = logits.grad.abs().sum(-1) > 0
    assert (taught & ~positive).sum(1).tolist() == (3 * positive.sum(1)).tolist()
    assert taught[positive].all()


def test_only_positives_teach_the_offsets() -> None:
    loc, logits, targets = random_case(3, 4)
    loc.requires_grad_()
    criterion = MultiBoxLoss(PRIORS, 0.5, 3.0, 8)
    criterion(loc, logits, targets).total.backward()
    positive = match(targets, criterion.priors_xyxy, 0.5).labels > 0
    assert torch.equal(loc.grad.abs().sum(-1) > 0, positive)


def test_ignored_objects_teach_nothing_about_their_priors() -> None:
    loc, logits, _ = random_case(1, 1)
    logits.requires_grad_()
    box = cxcywh_to_xyxy(PRIORS[40])[None, None]
    targets = Targets(box, torch.tensor([[1]]), torch.tensor([[True]]))
    MultiBoxLoss(PRIORS, 0.5, 3.0, min_negatives=len(PRIORS))(loc, logits, targets).total.backward()
    assert logits.grad[0, 40].abs().sum() == 0
    assert (logits.grad[0].abs().sum(-1) > 0).sum() < len(PRIORS)


def test_the_loss_is_a_mean_over_the_batch_s_positives() -> None:
    """Doubling a batch doubles both sums and the number of positives."""
    loc, logits, targets = random_case(2, 4)
    twice = Targets(
        *(t.repeat(2, *[1] * (t.ndim - 1)) for t in (targets.boxes, targets.labels, targets.ignored))
    )
    criterion = MultiBoxLoss(PRIORS, 0.5, 3.0, 8)
    single = criterion(loc, logits, targets)
    double = criterion(loc.repeat(2, 1, 1), logits.repeat(2, 1, 1), twice)
    torch.testing.assert_close(double.total, single.total)


def test_bfloat16_outputs_are_taken_in_float32() -> None:
    loc, logits, targets = random_case(2, 4)
    losses = MultiBoxLoss(PRIORS, 0.5, 3.0, 8)(loc.bfloat16(), logits.bfloat16(), targets)
    assert losses.total.dtype == torch.float32


def test_a_whole_image_object_is_matched() -> None:
    box = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    targets = Targets(box, torch.tensor([[2]]), torch.zeros(1, 1, dtype=torch.bool))
    loc = encode(box.expand(1, len(PRIORS), 4), PRIORS)
    losses = MultiBoxLoss(PRIORS, 0.5, 3.0, 8)(loc, torch.zeros(1, len(PRIORS), NUM_CLASSES), targets)
    assert losses.num_positives.item() >= 1
    assert losses.loc.item() == pytest.approx(0, abs=1e-5)
    assert xyxy_to_cxcywh(box)[0, 0].tolist() == [0.5, 0.5, 1.0, 1.0]
