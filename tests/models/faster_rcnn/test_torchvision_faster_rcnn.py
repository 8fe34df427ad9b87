"""The same proposals, detections and losses as torchvision's Faster R-CNN, an independent implementation."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import _utils, fasterrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from ssd.boxes import cxcywh_to_xyxy
from ssd.loading.batch_augment import normalise
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.faster_rcnn.sampling import RoIMatches
from ssd.models.faster_rcnn.torchvision_weights import convert_faster_rcnn
from ssd.models.published import published_file
from ssd.postprocess import PostProcessSettings
from ssd.structures import Targets

SIDE, NUM_CLASSES = 128, 4
CONFIG = FasterRCNNConfig("resnet50", SIDE, NUM_CLASSES, roi_samples=64)
TARGETS = Targets(
    torch.tensor(
        [[[0.1, 0.1, 0.5, 0.6], [0.3, 0.4, 0.9, 0.9]], [[0.5, 0.2, 0.8, 0.9], [0.0, 0.0, 0.0, 0.0]]]
    ),
    torch.tensor([[1, 3], [2, 0]]),
    torch.zeros(2, 2, dtype=torch.bool),
)


@pytest.fixture(scope="module")
def peer() -> nn.Module:
    """torchvision's detector on an input of SIDE pixels, its heads as varied as trained ones."""
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=NUM_CLASSES,
        fixed_size=(SIDE, SIDE),
        box_batch_size_per_image=CONFIG.roi_samples,
    )
    with torch.no_grad():
        for name, scale in (("rpn.head.cls_logits", 0.02), ("rpn.head.bbox_pred", 0.05)):
            model.get_submodule(name).weight.normal_(std=scale)
        model.roi_heads.box_predictor.cls_score.weight.normal_(std=0.05)
        model.roi_heads.box_predictor.bbox_pred.weight.normal_(std=0.02)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def ours(peer: nn.Module) -> FasterRCNN:
    model = FasterRCNN(CONFIG).eval()
    model.load_state_dict(convert_faster_rcnn(peer.state_dict()))
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(
        0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def same(found: Tensor, wanted: Tensor, tolerance: float = 2e-4) -> bool:
    """Each row of one has its equal among the other's: equal scores may come in another order."""
    difference = (found[:, None] - wanted).abs().amax(2)
    return max(difference.amin(0).max().item(), difference.amin(1).max().item()) < tolerance


@torch.inference_mode()
def test_it_has_the_same_anchors_proposals_and_detections(
    peer: nn.Module, ours: FasterRCNN, images: Tensor
) -> None:
    seen: dict[nn.Module, Any] = {}
    for part in (peer.rpn, peer.rpn.anchor_generator):
        part.register_forward_hook(lambda module, _, output: seen.update({module: output}))
    expected = peer(list(images / 255))
    outputs = ours(normalise(images))

    anchors, _ = seen[peer.rpn.anchor_generator]
    torch.testing.assert_close(cxcywh_to_xyxy(ours.priors) * SIDE, anchors, atol=1e-4, rtol=0)
    (their_proposals, _), (_, _, proposals, valid, _, _) = seen[peer.rpn], outputs
    assert valid.sum(1).tolist() == [len(boxes) for boxes in their_proposals]
    assert valid.sum(1).min() > 100
    for row, their_boxes in enumerate(their_proposals):
        assert same(proposals[row, valid[row]], their_boxes / SIDE)

    postprocessor = ours.postprocessor(PostProcessSettings(0.05, 0.5, max_detections=100))
    boxes, scores, labels, num_detections = postprocessor(*outputs)
    assert num_detections.tolist() == [len(image["scores"]) for image in expected]
    assert num_detections.min() > 50
    for row, image in enumerate(expected):
        num = int(num_detections[row])
        found = torch.cat([labels[row, :num, None], scores[row, :num, None], boxes[row, :num]], dim=1)
        assert same(
            found,
            torch.cat([image["labels"][:, None], image["scores"][:, None], image["boxes"] / SIDE], dim=1),
        )


def test_it_has_the_same_four_losses(
    peer: nn.Module, ours: FasterRCNN, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both in training, both taking the first anchors and proposals instead of random ones."""
    first = SimpleNamespace(**vars(torch))
    first.randperm = lambda number, device: torch.arange(number)
    monkeypatch.setattr(_utils, "torch", first)
    rows = [(TARGETS.boxes[i] * SIDE, TARGETS.labels[i]) for i in range(2)]
    theirs = [{"boxes": boxes[labels > 0], "labels": labels[labels > 0]} for boxes, labels in rows]
    criterion = ours.criterion({}, SIDE)
    drawn = criterion.match(TARGETS, (0,))
    assert drawn.anchor_keys is not None and drawn.proposal_keys is not None
    keys = (torch.linspace(1, 0, k.shape[1]).expand_as(k) for k in (drawn.anchor_keys, drawn.proposal_keys))
    matches = RoIMatches(drawn.anchors, drawn.targets, *keys)
    with torch.no_grad():
        # Of all modules, only those that hold the losses are in training: batch norms stay as they are.
        for module in (peer, peer.rpn, peer.roi_heads):
            module.training = True
        expected = peer(list(images / 255), theirs)
        outputs = ours(normalise(images), matches)
        peer.eval()
    objectness, anchor_boxes = criterion.anchor_terms(*outputs[:2], matches)
    classes, boxes, num_positives = criterion.proposal_terms(*outputs[2:], matches)
    assert num_positives > 3, "more than the three objects themselves"
    found = dict(zip(expected, (classes, boxes, objectness, anchor_boxes), strict=True))
    assert list(expected) == ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"]
    for name, value in expected.items():
        assert value > 0.01
        assert found[name].item() / 2 == pytest.approx(value.item(), rel=1e-4), name
    losses = criterion(*outputs, matches)
    assert losses.total.item() == pytest.approx(sum(expected.values()).item(), rel=1e-4)
    loc = expected["loss_rpn_box_reg"] + expected["loss_box_reg"]
    assert losses.loc.item() == pytest.approx(loc.item(), rel=1e-4)


def test_frozen_batch_norms_without_epsilon_become_those_of_here(images: Tensor) -> None:
    """As in the published file, whose network has them."""
    torch.manual_seed(0)
    norm = FrozenBatchNorm2d(3, eps=0.0)
    norm.running_var.uniform_(1e-4, 1)
    norm.running_mean.normal_()
    state = {f"backbone.body.bn1.{key}": value for key, value in norm.state_dict().items()}
    ours = nn.BatchNorm2d(3).eval()
    converted = convert_faster_rcnn(state, eps=0.0)
    ours.load_state_dict(
        {key.removeprefix("backbone.bn1."): value for key, value in converted.items()}, strict=False
    )
    torch.testing.assert_close(ours(images.float()), norm(images.float()))


def test_an_older_version_s_names_are_known() -> None:
    """Those of the published file, whose digits torchvision states."""
    old = ["backbone.fpn.inner_blocks.3.weight", "backbone.fpn.layer_blocks.0.bias", "rpn.head.conv.weight"]
    new = [
        "backbone.fpn.inner_blocks.3.0.weight",
        "backbone.fpn.layer_blocks.0.0.bias",
        "rpn.head.conv.0.0.weight",
    ]
    names = ["neck.lateral.3.weight", "neck.output.0.bias", "rpn.conv.0.0.weight"]
    for keys in (old, new):
        assert list(convert_faster_rcnn({key: torch.zeros(1) for key in keys})) == names
    assert published_file("resnet50", "coco").sha256 == "258fb6c6"


def test_a_name_of_another_network_is_an_error() -> None:
    with pytest.raises(KeyError, match="mask_head"):
        convert_faster_rcnn({"roi_heads.mask_head.mask_fcn1.weight": torch.zeros(1)})
