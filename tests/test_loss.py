"""MultiBox loss against a plain reference, and what it must do at its edges."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import complete_box_iou_loss

from ssd.boxes import cxcywh_to_xyxy, decode, encode
from ssd.loss import Losses, LossSettings, MultiBoxLoss
from ssd.matching import Matches, match
from ssd.models.priors import make_priors, paper_levels
from ssd.structures import Targets

PRIORS = make_priors([(8, 8), (4, 4), (2, 2), (1, 1)], paper_levels(4, 0.1, 0.2, 1.05))
NUM_CLASSES = 4
PAPER = LossSettings()
VARIANTS = [
    PAPER,
    LossSettings(negatives=1.5, min_negatives=0, box_weight=2.0),
    LossSettings(label_smoothing=0.1),
    LossSettings(box_loss="l1", negatives_by="confidence"),
    LossSettings(box_loss="giou"),
    LossSettings(box_loss="ciou", box_weight=0.5),
    LossSettings(conf_loss="focal"),
    LossSettings(conf_loss="focal", focal_gamma=1.5, focal_alpha=0.6, label_smoothing=0.05, match_iou=0.4),
]


def random_case(batch_size: int, num_objects: int, seed: int = 0) -> tuple[Tensor, Tensor, Targets]:
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(batch_size, len(PRIORS), 4, generator=generator)
    logits = torch.randn(batch_size, len(PRIORS), NUM_CLASSES, generator=generator)
    corner = torch.rand(batch_size, num_objects, 2, generator=generator) * 0.6
    boxes = torch.cat([corner, corner + 0.1 + 0.3 * torch.rand(corner.shape, generator=generator)], -1)
    labels = torch.randint(1, NUM_CLASSES, (batch_size, num_objects), generator=generator)
    labels[1:, num_objects // 2 :] = 0  # padding
    ignored = (torch.rand(labels.shape, generator=generator) < 0.15) & (labels > 0)
    return loc, logits, Targets(boxes, labels, ignored)


def losses_of(loc: Tensor, logits: Tensor, targets: Targets, settings: LossSettings = PAPER) -> Losses:
    criterion = MultiBoxLoss(PRIORS, settings)
    return criterion(loc, logits, criterion.match(targets))


def labels_and_boxes(matches: Matches) -> tuple[Tensor, Tensor]:
    """Class [B, P], 0 where background, and box [B, P, 4] of each prior."""
    column = matches.objects.clamp(min=0)
    labels = matches.targets.labels.gather(1, column) * matches.positive
    return labels, matches.targets.boxes.gather(1, column[..., None].expand(-1, -1, 4))


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al., CVPR 2019, algorithm 1), in float64."""
    boxes, targets = boxes.double(), targets.double()
    outer = torch.cat([torch.minimum(boxes, targets)[:, :2], torch.maximum(boxes, targets)[:, 2:]], 1)
    inner = torch.cat([torch.maximum(boxes, targets)[:, :2], torch.minimum(boxes, targets)[:, 2:]], 1)
    areas = [(b[:, 2:] - b[:, :2]).clamp(min=0).prod(1) for b in (boxes, targets, outer, inner)]
    union = areas[0] + areas[1] - areas[3]
    return 1 - areas[3] / union + (areas[2] - union) / areas[2]


def reference(loc: Tensor, logits: Tensor, targets: Targets, settings: LossSettings) -> tuple[float, float]:
    """Equation 1 of the paper, and its variants, image by image and prior by prior."""
    matches = match(targets, cxcywh_to_xyxy(PRIORS), settings.match_iou)
    all_labels, all_boxes = labels_and_boxes(matches)
    loc_sum, conf_sum, num_positives = 0.0, 0.0, 0
    for image in range(len(loc)):
        labels, boxes, ignored = all_labels[image], all_boxes[image], matches.ignored[image]
        positive = labels > 0
        num_positives += int(positive.sum())
        if settings.box_loss == "smooth_l1":
            offsets = encode(boxes, PRIORS)
            loc_sum += F.smooth_l1_loss(loc[image][positive], offsets[positive], reduction="sum").item()
        elif settings.box_loss == "l1":
            loc_sum += F.l1_loss(
                loc[image][positive], encode(boxes, PRIORS)[positive], reduction="sum"
            ).item()
        else:
            error = {"giou": giou_loss, "ciou": complete_box_iou_loss}[settings.box_loss]
            loc_sum += error(decode(loc[image], PRIORS)[positive], boxes[positive]).sum().item()
        errors = F.cross_entropy(
            logits[image], labels, reduction="none", label_smoothing=settings.label_smoothing
        )
        if settings.conf_loss == "focal":
            p = logits[image].softmax(-1)[range(len(labels)), labels]
            alpha = torch.where(positive, settings.focal_alpha, 1 - settings.focal_alpha)
            conf_sum += (alpha * (1 - p) ** settings.focal_gamma * errors)[~ignored].sum().item()
        else:
            negatives = (~positive & ~ignored).nonzero().flatten().tolist()
            p = logits[image].softmax(-1)
            background = p[:, 0] if settings.negatives_by == "loss" else -p[:, 1:].max(-1).values
            negatives.sort(key=background.tolist().__getitem__)
            wanted = max(settings.negatives * int(positive.sum()), settings.min_negatives)
            conf_sum += errors[positive].sum().item()
            conf_sum += sum(errors[prior].item() for rank, prior in enumerate(negatives) if rank < wanted)
    scale = max(num_positives, 1)
    return loc_sum * settings.box_weight / scale, conf_sum / scale


@pytest.mark.parametrize("settings", VARIANTS)
@pytest.mark.parametrize("num_objects", [1, 5, 12])
def test_agrees_with_the_reference(num_objects: int, settings: LossSettings) -> None:
    loc, logits, targets = random_case(4, num_objects)
    losses = losses_of(loc, logits, targets, settings)
    expected_loc, expected_conf = reference(loc, logits, targets, settings)
    assert losses.loc.item() == pytest.approx(expected_loc, rel=1e-3)
    assert losses.conf.item() == pytest.approx(expected_conf, rel=1e-4)
    assert losses.total.item() == pytest.approx(expected_loc + expected_conf, rel=1e-3)


def losses_and_gradients(settings: LossSettings) -> list[Tensor]:
    loc, logits, targets = random_case(3, 6)
    losses = losses_of(loc.requires_grad_(), logits.requires_grad_(), targets, settings)
    losses.total.backward()
    return [losses.total.detach(), losses.loc.detach(), losses.conf.detach(), loc.grad, logits.grad]


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_way_without_a_look_at_the_data_gives_the_same(
    settings: LossSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs and compilers go it: mask instead of gather."""
    looking = losses_and_gradients(settings)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for blind, seen in zip(losses_and_gradients(settings), looking, strict=True):
        torch.testing.assert_close(blind, seen)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [PAPER, LossSettings(conf_loss="focal", box_loss="ciou")])
def test_matching_and_losses_compile_to_one_graph(settings: LossSettings) -> None:
    loc, logits, targets = random_case(3, 4)
    compiled = torch.compile(losses_of, backend="eager", fullgraph=True)
    torch.testing.assert_close(
        compiled(loc, logits, targets, settings).total, losses_of(loc, logits, targets, settings).total
    )


def test_the_same_bits_every_time() -> None:
    first, second = (losses_and_gradients(PAPER) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_right_answer_costs_next_to_nothing() -> None:
    _, _, targets = random_case(2, 3)
    labels, boxes = labels_and_boxes(match(targets, cxcywh_to_xyxy(PRIORS), 0.5))
    loc, logits = encode(boxes, PRIORS), F.one_hot(labels, NUM_CLASSES).float() * 50
    for settings in (PAPER, LossSettings(box_loss="giou"), LossSettings(box_loss="ciou", conf_loss="focal")):
        assert losses_of(loc, logits, targets, settings).total.item() < 1e-4


@pytest.mark.parametrize("conf_loss", ["cross_entropy", "focal"])
def test_images_without_objects_teach(conf_loss: str) -> None:
    loc, logits, _ = random_case(2, 1)
    logits.requires_grad_()
    empty = torch.zeros(2, 0)
    targets = Targets(torch.zeros(2, 0, 4), empty.long(), empty.bool())
    losses = losses_of(loc, logits, targets, LossSettings(conf_loss=conf_loss))
    losses.total.backward()
    trained = (logits.grad.abs().sum(-1) > 0).sum(1)
    assert losses.loc.item() == 0
    assert trained.tolist() == [8, 8] if conf_loss == "cross_entropy" else [len(PRIORS)] * 2


def test_exactly_three_negatives_a_positive_have_a_gradient() -> None:
    loc, logits, targets = random_case(3, 4)
    logits.requires_grad_()
    losses_of(loc, logits, targets, LossSettings(min_negatives=0)).total.backward()
    positive = match(targets, cxcywh_to_xyxy(PRIORS), 0.5).positive
    trained = logits.grad.abs().sum(-1) > 0
    assert (trained & ~positive).sum(1).tolist() == (3 * positive.sum(1)).tolist()
    assert trained[positive].all()


def test_label_smoothing_does_not_change_which_negatives_are_hard() -> None:
    trained = []
    for label_smoothing in (0.0, 0.3):
        loc, logits, targets = random_case(3, 4)
        logits[..., 0] += 5
        settings = replace(PAPER, label_smoothing=label_smoothing)
        losses_of(loc, logits.requires_grad_(), targets, settings).total.backward()
        trained.append(logits.grad.abs().sum(-1) > 0)
    assert torch.equal(*trained)


@pytest.mark.parametrize("box_loss", ["smooth_l1", "l1", "giou", "ciou"])
def test_only_positives_teach_the_offsets(box_loss: str) -> None:
    loc, logits, targets = random_case(3, 4)
    loc.requires_grad_()
    losses_of(loc, logits, targets, LossSettings(box_loss=box_loss)).total.backward()
    assert torch.equal(loc.grad.abs().sum(-1) > 0, match(targets, cxcywh_to_xyxy(PRIORS), 0.5).positive)


@pytest.mark.parametrize("conf_loss", ["cross_entropy", "focal"])
def test_ignored_objects_teach_nothing_about_their_priors(conf_loss: str) -> None:
    loc, logits, _ = random_case(1, 1)
    logits.requires_grad_()
    box = cxcywh_to_xyxy(PRIORS[40])[None, None]
    targets = Targets(box, torch.tensor([[1]]), torch.tensor([[True]]))
    settings = LossSettings(conf_loss=conf_loss, min_negatives=len(PRIORS))
    losses_of(loc, logits, targets, settings).total.backward()
    trained = logits.grad[0].abs().sum(-1) > 0
    ignored = match(targets, cxcywh_to_xyxy(PRIORS), 0.5).ignored[0]
    assert ignored[40]
    assert torch.equal(trained, ~ignored)


def test_the_loss_is_a_mean_over_the_batch_s_positives() -> None:
    """Doubling a batch doubles both sums and the number of positives."""
    loc, logits, targets = random_case(2, 4)
    twice = Targets(
        *(t.repeat(2, *[1] * (t.ndim - 1)) for t in (targets.boxes, targets.labels, targets.ignored))
    )
    single = losses_of(loc, logits, targets)
    double = losses_of(loc.repeat(2, 1, 1), logits.repeat(2, 1, 1), twice)
    torch.testing.assert_close(double.total, single.total)
    assert double.num_positives == 2 * single.num_positives


@pytest.mark.parametrize("settings", VARIANTS)
def test_the_parts_of_a_batch_add_up_to_the_whole(settings: LossSettings) -> None:
    loc, logits, targets = random_case(5, 4)
    criterion = MultiBoxLoss(PRIORS, settings)
    matches = criterion.match(targets)
    whole = criterion(loc, logits, matches)
    parts = [
        criterion(loc[rows], logits[rows], matches.rows(rows), matches.num_positives)
        for rows in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(parts[0].total + parts[1].total, whole.total)
    torch.testing.assert_close(parts[0].loc + parts[1].loc, whole.loc)
    assert parts[0].num_positives + parts[1].num_positives == whole.num_positives == matches.num_positives


def test_a_number_of_positives_of_zero_counts_as_one() -> None:
    loc, logits, targets = random_case(2, 4)
    criterion = MultiBoxLoss(PRIORS)
    matches = criterion.match(targets)
    zero, one = (criterion(loc, logits, matches, torch.tensor(n)).total for n in (0, 1))
    assert zero == one


@pytest.mark.parametrize("settings", VARIANTS)
def test_bfloat16_outputs_are_taken_in_float32(settings: LossSettings) -> None:
    loc, logits, targets = random_case(2, 4)
    losses = losses_of(loc.bfloat16(), logits.bfloat16(), targets, settings)
    rounded = losses_of(loc.bfloat16().float(), logits.bfloat16().float(), targets, settings)
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(losses.total, rounded.total)


@pytest.mark.parametrize("settings", VARIANTS)
def test_loss_and_gradient_stay_finite_with_outputs_gone_wild(settings: LossSettings) -> None:
    loc, logits, targets = random_case(2, 4)
    targets.boxes[0, 0, 2:] = targets.boxes[0, 0, :2]  # no area
    loc, logits = (loc * 1e4).requires_grad_(), (logits * 1e3).requires_grad_()
    losses = losses_of(loc, logits, targets, settings)
    losses.total.backward()
    assert losses.total.isfinite()
    assert loc.grad.isfinite().all()
    assert logits.grad.isfinite().all()


def test_outputs_that_are_not_numbers_are_seen_in_the_loss() -> None:
    loc, logits, targets = random_case(2, 4)
    logits[1, 3] = float("nan")
    assert losses_of(loc, logits, targets).conf.isnan()


def test_a_whole_image_object_is_matched() -> None:
    box = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    targets = Targets(box, torch.tensor([[2]]), torch.zeros(1, 1, dtype=torch.bool))
    loc = encode(box.expand(1, len(PRIORS), 4), PRIORS)
    losses = losses_of(loc, torch.zeros(1, len(PRIORS), NUM_CLASSES), targets)
    assert losses.num_positives.item() >= 1
    assert losses.loc.item() == pytest.approx(0, abs=1e-5)
