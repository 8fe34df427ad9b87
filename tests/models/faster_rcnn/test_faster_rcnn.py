"""The network with its criterion and post-processor: what training and validation expect of every family."""

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from ssd.errors import UserError
from ssd.loss import Losses
from ssd.models.faster_rcnn import proposals
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.faster_rcnn.proposals import nms_by_row, nms_of_all_levels, propose
from ssd.postprocess import nms_mask
from ssd.structures import Targets

SIDE = 64
CONFIG = FasterRCNNConfig("resnet18", SIDE, 4, width=16, rpn_proposals=60, roi_samples=24, roi_width=32)
TARGETS = Targets(
    torch.tensor(
        [[[0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.9, 0.5]], [[0.2, 0.5, 0.7, 0.9], [0.0, 0.0, 0.0, 0.0]]]
    ),
    torch.tensor([[1, 3], [2, 0]]),
    torch.tensor([[False, False], [False, False]]),
)
KEY = (0, 0, 0, 0)


@cache
def _built() -> FasterRCNN:
    torch.manual_seed(0)
    model = FasterRCNN(CONFIG).eval()
    for layer, std in ((model.rpn.cls_logits, 0.3), (model.predictor.cls_score, 0.5)):
        nn.init.normal_(layer.weight, std=std)
    return model


def build() -> FasterRCNN:
    return copy.deepcopy(_built())


def images(num: int = 2, side: int = SIDE) -> Tensor:
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(0))


def losses_of(model: FasterRCNN, inputs: Tensor, targets: Targets, key: tuple[int, ...] = ()) -> Losses:
    criterion = model.criterion({}, inputs.shape[-1])
    matches = criterion.match(targets, key)
    losses: Losses = criterion(*model(inputs, matches if key else None), matches)
    return losses


def test_a_training_step_has_the_sampled_proposals_and_validation_the_best() -> None:
    model = build()
    matches = model.criterion({}, SIDE).match(TARGETS, KEY)
    for outputs, number in ((model(images(), matches), 24), (model(images()), 60)):
        objectness, anchor_offsets, proposals, valid, logits, offsets = outputs
        assert objectness.shape == (2, len(model.priors)) == (2, 1023)
        assert anchor_offsets.shape == (2, 1023, 4)
        assert proposals.shape == (2, number, 4)
        assert valid.shape == (2, number)
        assert logits.shape == (2, number, 4)
        assert offsets.shape == (2, number, 4, 4)
        assert proposals.min() >= 0
        assert proposals.max() <= 1


def test_the_same_key_draws_the_same_sample_and_another_one_another() -> None:
    model = build()
    totals = [losses_of(model, images(), TARGETS, key).total.item() for key in (KEY, KEY, (0, 0, 1, 0))]
    assert totals[0] == totals[1] != totals[2]


def test_the_loss_of_validation_is_that_of_its_images_one_by_one() -> None:
    model = build()
    whole = losses_of(model, images(), TARGETS)
    parts = [losses_of(model, images()[[i]], TARGETS.rows(slice(i, i + 1))) for i in range(2)]
    assert whole.loc.item() == pytest.approx(sum(part.loc.item() for part in parts) / 2, rel=1e-4)
    assert whole.conf.item() == pytest.approx(sum(part.conf.item() for part in parts) / 2, rel=1e-4)


def test_micro_batches_add_up_to_the_batch() -> None:
    model, criterion = build(), build().criterion({}, SIDE)
    matches = criterion.match(TARGETS, KEY)
    whole = criterion(*model(images(), matches), matches)
    total = torch.zeros(())
    for rows in (slice(0, 1), slice(1, 2)):
        part = matches.rows(rows)
        total += criterion(*model(images()[rows], part), part, matches.divisor).total.detach()
    assert total.item() == pytest.approx(whole.total.item(), rel=1e-4)
    assert matches.divisor == 2


def test_the_loss_of_validation_is_the_expectation_of_the_sampled_anchors() -> None:
    criterion = build().criterion({}, SIDE)
    objectness, offsets, *_ = build()(images())
    few = replace(CONFIG, rpn_samples=16)
    criterion.config = few
    expected = criterion.anchor_terms(objectness, offsets, criterion.match(TARGETS))
    matches = (criterion.match(TARGETS, (seed,)) for seed in range(200))
    drawn = torch.tensor([criterion.anchor_terms(objectness, offsets, found) for found in matches])
    torch.testing.assert_close(drawn.mean(0), torch.stack(expected).detach(), rtol=0.05, atol=0.0)


@pytest.mark.parametrize("key", [KEY, ()], ids=["training", "validation"])
def test_images_without_objects_teach(key: tuple[int, ...]) -> None:
    nothing = Targets(
        torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.bool)
    )
    model = build()
    losses = losses_of(model, images(), nothing, key)
    losses.total.backward()
    assert losses.loc == 0
    assert losses.conf > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.rpn.cls_logits.weight.grad.abs().sum() > 0
    assert model.predictor.cls_score.weight.grad.abs().sum() > 0


def test_what_lies_on_an_ignored_object_counts_neither_way() -> None:
    """The whole image is a crowd: nothing that has an IoU of 0.3 or 0.5 with it is background."""
    model = build()
    crowd = Targets(
        torch.tensor([[[0.0, 0.0, 1.0, 1.0]]] * 2), torch.tensor([[1]] * 2), torch.tensor([[True]] * 2)
    )
    matches = model.criterion({}, SIDE).match(crowd)
    assert not matches.anchors.positive.any()
    assert not matches.anchors.negative.all()
    assert losses_of(model, images(), crowd).loc == 0


def test_every_size_and_precision_of_training_has_finite_gradients() -> None:
    for side, dtype in ((96, torch.float32), (70, torch.bfloat16)):
        model = build().train()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            criterion = model.criterion({}, side)
            matches = criterion.match(TARGETS, KEY)
            outputs = model(images(side=side), matches)
        criterion(*outputs, matches).total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_proposals_are_the_same_with_nms_of_all_rows_at_once() -> None:
    """As on a GPU and in exported graphs."""
    model = build()
    objectness, offsets, *_ = model(images())
    arguments = (
        objectness.detach(),
        offsets.detach(),
        model.priors,
        CONFIG.anchors_per_level(SIDE),
        SIDE,
        60,
        0.7,
    )
    by_row, at_once = propose(*arguments, nms_by_row), propose(*arguments, lambda *rows: nms_mask(*rows))
    assert torch.equal(by_row[0], at_once[0])
    assert torch.equal(by_row[1], at_once[1])


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_equal_objectness_ranks_anchors_by_their_index_and_high_objectness_by_its_value(shift: float) -> None:
    """Float32 sigmoids of 30 and 31 are equal; ONNX takes the first of equal ones, too."""
    values = torch.tensor([1.0, 2, 0, 2] * 6 + [1.0, 2, 0, 2, 3])
    corner = torch.linspace(0.1, 0.9, len(values))
    anchors = torch.stack([corner, corner, torch.full_like(corner, 0.05), torch.full_like(corner, 0.05)], 1)
    boxes, valid = propose(
        (values + shift)[None], torch.zeros(1, len(values), 4), anchors, [24, 5], SIDE, 20, 1.0
    )
    best = sorted(range(len(values)), key=lambda index: (-values[index], index))[:20]
    assert valid.all()
    torch.testing.assert_close(boxes[0].mean(1), corner[best])


def test_nms_of_all_levels_at_once_is_that_of_each_level_of_each_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, where one call takes as many images as MAX_BOXES allows: here one, two, or all three."""
    generator = torch.Generator().manual_seed(0)
    counts = [70, 40, 10]
    corner = 0.8 * torch.rand(3, sum(counts), 2, generator=generator)
    boxes = torch.cat([corner, corner + 0.4 * torch.rand(corner.shape, generator=generator)], dim=2).clamp(
        max=1
    )
    scores = torch.rand(3, sum(counts), generator=generator).masked_fill(boxes[..., 0] > 0.75, -1)
    expected = []
    for own_boxes, own_scores in zip(boxes.split(counts, 1), scores.split(counts, 1), strict=True):
        ordered, order = own_scores.sort(dim=1, descending=True)
        keep = nms_by_row(own_boxes.gather(1, order[..., None].expand(-1, -1, 4)), ordered, 0.3, -0.5)
        expected.append(torch.zeros_like(keep).scatter(1, order, keep))
    wanted = torch.cat(expected, dim=1)
    assert 0.2 < wanted.float().mean() < 0.8
    for most in (1, 240, 2**15):
        monkeypatch.setattr(proposals, "MAX_BOXES", most)
        found = nms_of_all_levels(boxes, scores, counts, 0.3) & (scores >= 0)
        assert torch.equal(found, wanted)


def test_rows_that_are_no_proposals_are_left_out_of_the_second_stage() -> None:
    """With the same outputs and gradients of the others, and with none at all."""
    model = build()
    maps = [x.detach() for x in model.neck(model.backbone(images()))]
    _, _, boxes, _, *_ = model(images())
    some = torch.rand(2, 60, generator=torch.Generator().manual_seed(0)) < 0.5
    results = []
    for valid in (torch.ones_like(some), some):
        model.zero_grad()
        logits, offsets = model.second_stage(maps, boxes, valid, SIDE)
        own = logits[some.flatten()], offsets[some.flatten()]
        (own[0].logsumexp(1).sum() + own[1].square().sum()).backward()
        results.append((*own, *(p.grad for p in model.box_head.parameters())))
    for found, wanted in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    logits, _ = model.second_stage(maps, boxes, torch.zeros_like(some), SIDE)
    assert logits.shape == (120, 4)
    logits.sum().backward()


def test_other_input_sizes_have_their_anchors_ready_after_the_first_step() -> None:
    model = build()
    with torch.inference_mode():
        anchors = model.anchors_at(96)
    assert not anchors.is_inference(), "training may not use it then"
    torch.testing.assert_close(anchors, CONFIG.anchors_at(96), rtol=0, atol=0)
    assert model.anchors_at(96) is anchors
    assert not any(key.startswith("anchors") or "priors" in key for key in model.state_dict())


def test_a_backbone_without_a_map_of_stride_4_is_refused() -> None:
    for name in ("vgg16", "resnet18_conv4"):
        with pytest.raises(
            UserError, match=rf"^model\.backbone: {name} has no feature maps of strides 4, 8, 16, 32, which"
        ):
            FasterRCNN(FasterRCNNConfig(name, SIDE, 4))
