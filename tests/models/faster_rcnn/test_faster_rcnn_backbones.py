"""Backbones beside ResNet: maps at strides 4 to 32 of any input, training in bfloat16, export."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import narrow_swin
import pytest
import torch
from narrow_swin import TIMM, TORCHVISION
from small_detector import assert_same_detections, scenes, spread_scores

from ssd.detector import Detector
from ssd.export.torchscript import open_torchscript, to_torchscript
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.postprocess import PostProcessSettings
from ssd.structures import Targets

SIDE = 96
CHANNELS = {
    "resnet50": (256, 512, 1024, 2048),
    "efficientnet_b3": (32, 48, 136, 1536),
    "swin_t": (96, 192, 384, 768),
    "swin_s": (96, 192, 384, 768),
    "timm/swin_small_patch4_window7_224": (96, 192, 384, 768),
}
TARGETS = Targets(
    torch.tensor([[[0.1, 0.1, 0.6, 0.7]], [[0.2, 0.5, 0.7, 0.9]]]),
    torch.tensor([[1], [2]]),
    torch.tensor([[False], [False]]),
)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with narrow_swin.registered():
        yield


@cache
def build(backbone: str) -> FasterRCNN:
    torch.manual_seed(0)
    few = {"width": 16, "roi_width": 32, "rpn_train_proposals": 60, "rpn_proposals": 60, "roi_samples": 24}
    return FasterRCNN(FasterRCNNConfig(backbone, SIDE, 4, **few))


@pytest.mark.parametrize("name", CHANNELS)
def test_published_networks_have_maps_of_strides_4_to_32(name: str) -> None:
    shapes = FasterRCNNConfig(name, 128, 4).backbone_shapes()
    assert shapes == tuple(
        (number, side, side) for number, side in zip(CHANNELS[name], (32, 16, 8, 4), strict=True)
    )


@pytest.mark.parametrize("name", ["efficientnet_b3", TORCHVISION, TIMM])
def test_they_train_and_detect_in_bfloat16_at_any_size(name: str) -> None:
    model = build(name)
    for side in (SIDE, 70):
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        model.train().zero_grad()
        criterion = model.criterion({}, side)
        matches = criterion.match(TARGETS, (0, 0, 0, 0))
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(images, matches)
        criterion(*outputs, matches).total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        outputs = model.eval()(torch.randn(2, 3, SIDE, SIDE))
        boxes, scores, _, numbers = model.postprocessor(PostProcessSettings(0.0, max_detections=9))(*outputs)
    assert numbers.tolist() == [9, 9]
    assert boxes.isfinite().all() and scores.dtype == torch.float32


@torch.inference_mode()
def test_swin_in_torchscript_detects_what_pytorch_does(tmp_path: Path) -> None:
    model = build(TIMM)
    spread_scores(model)
    detector = Detector(model.eval(), PostProcessSettings(0.2, 0.45, max_detections=50))
    (tmp_path / "a.pt").write_bytes(to_torchscript(detector, ["a", "b", "c"]))
    run, _ = open_torchscript(tmp_path / "a.pt")
    for images in (scenes(1, 97, 60), scenes(3, 50, 120)):
        expected = detector(images)
        assert expected[3].min() > 10
        assert_same_detections(run(images), expected)
