"""Swin backbones: channels-last maps and fixed image sizes, as maps of any input size like all others."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import narrow_swin
import pytest
import torch
from narrow_swin import TIMM, TORCHVISION, WIDTH, of_timm, of_torchvision
from safetensors.torch import save_file

from ssd.models.auxiliary import NORMED
from ssd.models.config import paper_config
from ssd.models.feature_maps import map_shapes
from ssd.models.ssd import SSD
from ssd.models.weights import load_weights


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with narrow_swin.registered():
        yield


@cache
def build(name: str) -> SSD:
    return SSD(paper_config(name, 64, 3)).eval()


@pytest.fixture(params=[TORCHVISION, TIMM])
def model(request: pytest.FixtureRequest) -> SSD:
    return build(request.param)


@pytest.mark.parametrize("name", ["swin_t", "timm/swin_tiny_patch4_window7_224"])
def test_published_networks_have_maps_of_strides_8_16_and_32(name: str) -> None:
    own, _ = map_shapes(name, (), NORMED, 100)
    assert own == ((192, 13, 13), (384, 7, 7), (768, 4, 4))


def test_maps_have_strides_8_16_and_32_where_windows_are_partial(model: SSD) -> None:
    """Of 25x25, 13x13, 7x7 and 4x4 cells, in windows of 7x7."""
    with torch.inference_mode():
        maps = model.backbone(torch.zeros(1, 3, 100, 100))
    expected = [(1, WIDTH * n, cells, cells) for n, cells in ((2, 13), (4, 7), (8, 4))]
    assert [tuple(x.shape) for x in maps] == expected
    assert model.config.map_sizes(100)[:3] == [(13, 13), (7, 7), (4, 4)]


def test_images_of_any_size_have_maps(model: SSD) -> None:
    """Of sides that are no multiple of 4 torchvision leaves out what is over; timm pads."""
    for side in (70, 97, 103):
        with torch.inference_mode():
            maps = model.backbone(torch.zeros(1, 3, side, side))
        for x, stride in zip(maps, (8, 16, 32), strict=True):
            assert x.shape[2] == x.shape[3] == pytest.approx(side / stride, abs=1)


def test_stages_are_the_patch_embedding_and_the_four_of_the_network(model: SSD) -> None:
    stages = model.backbone.stages()
    sizes = [sum(p.numel() for module in stage for p in module.parameters()) for stage in stages]
    assert sizes[0] == 3 * 4 * 4 * WIDTH + WIDTH + 2 * WIDTH
    assert len(sizes) == 5 and sorted(sizes) == sizes
    assert sum(sizes) == sum(p.numel() for p in model.backbone.parameters())


def test_every_parameter_learns_in_bfloat16(model: SSD) -> None:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loc, logits = model(torch.randn(2, 3, 64, 64))
    (loc.float().square().mean() + logits.float().square().mean()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated", "error::torch.jit.TracerWarning")
def test_a_trace_takes_any_number_of_images(model: SSD) -> None:
    """Without a warning that a size became a constant, which to_torchscript makes an error."""
    images = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        # Not strict: a list may be returned.
        traced = torch.jit.trace(model.backbone, torch.zeros(2, 3, 64, 64), check_trace=False, strict=False)
        for number in (1, 3):
            found, expected = traced(images[:number]), model.backbone(images[:number])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_torchvision_s_weights_give_torchvision_s_maps(tmp_path: Path) -> None:
    network = of_torchvision().eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    ours = build(TORCHVISION)
    load_weights(ours, str(tmp_path / "w.pth"))
    images = torch.randn(1, 3, 72, 72)
    with torch.inference_mode():
        eighth = network.features[:4](images)
        last = network.permute(network.norm(network.features(images)))
        found = ours.backbone(images)
    torch.testing.assert_close(found[0], eighth.permute(0, 3, 1, 2))
    torch.testing.assert_close(found[2], last)


def test_timm_s_weights_give_timm_s_maps(tmp_path: Path) -> None:
    """At 224 pixels, for which timm builds it, all windows are whole."""
    network = cast(Any, of_timm()).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    ours = build(TIMM)
    load_weights(ours, str(tmp_path / "w.safetensors"))
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = network.forward_intermediates(images, intermediates_only=True)[1:3]
        found = ours.backbone(images)[:2]
    for ours_here, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_here, theirs, atol=1e-4, rtol=1e-4)
