"""Swin backbones: channels-last maps and fixed image sizes, as maps of any input size like all others."""

from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from ssd.detector import Detector
from ssd.export.torchscript import open_torchscript, to_torchscript
from ssd.files import write_bytes
from ssd.models.config import paper_config
from ssd.models.ssd import SSD
from ssd.models.weights import load_weights
from ssd.postprocess import PostProcessSettings

TIMM = "timm/swin_tiny_patch4_window7_224"


@pytest.fixture(scope="module", params=["swin_t", TIMM])
def model(request: pytest.FixtureRequest) -> SSD:
    return SSD(paper_config(request.param, 64, 3)).eval()


@pytest.mark.parametrize("side", [64, 100, 300])
def test_maps_have_strides_8_16_and_32_at_any_size(model: SSD, side: int) -> None:
    cells = {64: [8, 4, 2], 100: [13, 7, 4], 300: [38, 19, 10]}[side]
    with torch.inference_mode():
        maps = model.backbone(torch.zeros(1, 3, side, side))
    expected = [(1, c, n, n) for c, n in zip((192, 384, 768), cells, strict=True)]
    assert [tuple(x.shape) for x in maps] == expected
    assert model.config.map_sizes(side)[:3] == [(n, n) for n in cells]


def test_stages_are_the_patch_embedding_and_the_four_of_the_network(model: SSD) -> None:
    stages = model.backbone.stages()
    sizes = [sum(p.numel() for module in stage for p in module.parameters()) for stage in stages]
    assert sizes[0] == 3 * 4 * 4 * 96 + 96 + 2 * 96
    assert sorted(sizes) == sizes
    assert sum(sizes) == sum(p.numel() for p in model.backbone.parameters())


@pytest.mark.parametrize("enabled", [False, True], ids=["float32", "bfloat16"])
def test_every_parameter_learns(model: SSD, enabled: bool) -> None:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        loc, logits = model(torch.randn(2, 3, 64, 64))
    (loc.float().square().mean() + logits.float().square().mean()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


def test_the_torchscript_file_takes_any_number_of_images(model: SSD, tmp_path: Path) -> None:
    detector = Detector(model, PostProcessSettings(1e-3, max_detections=5))
    write_bytes(tmp_path / "ssd.pt", to_torchscript(detector, ["cat", "dog"]))
    run, _ = open_torchscript(tmp_path / "ssd.pt")
    images = torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8)
    with torch.inference_mode():
        expected = detector(images)
    for number in (1, 2, 3):
        torch.testing.assert_close(run(images[:number])[1], expected[1][:number], atol=1e-5, rtol=0)


def test_torchvision_s_weights_give_torchvision_s_maps(tmp_path: Path) -> None:
    network = models.swin_t(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    ours = SSD(paper_config("swin_t", 64, 3)).eval()
    load_weights(ours, str(tmp_path / "w.pth"))
    images = torch.randn(1, 3, 72, 72)
    with torch.inference_mode():
        eighth = network.features[:4](images)
        last = network.permute(network.norm(network.features(images)))
        found = ours.backbone(images)
    torch.testing.assert_close(found[0], eighth.permute(0, 3, 1, 2))
    torch.testing.assert_close(found[2], last)


def test_timm_s_weights_give_timm_s_maps(tmp_path: Path) -> None:
    """At the size of the file all windows are whole."""
    network = cast(Any, timm.create_model(TIMM.removeprefix("timm/"), pretrained=False)).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    ours = SSD(paper_config(TIMM, 224, 3)).eval()
    load_weights(ours, str(tmp_path / "w.safetensors"))
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = network.forward_intermediates(images, intermediates_only=True)[1:3]
        found = ours.backbone(images)[:2]
    for ours_here, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_here, theirs, atol=1e-4, rtol=1e-4)
