"""Necks and kinds of heads: outputs that fit the priors, gradients everywhere, the published shapes."""

from itertools import product

import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.ops import FeaturePyramidNetwork

from ssd.models.config import paper_config
from ssd.models.fpn import FPN
from ssd.models.ssd import SSD


def build(neck: str, heads: str, backbone: str = "resnet18") -> SSD:
    torch.manual_seed(0)
    return SSD(paper_config(backbone, 96, 4, neck=neck, heads=heads, width=32))


@pytest.mark.parametrize(("neck", "heads"), product(["none", "fpn"], ["conv3x3", "conv1x1", "ssdlite"]))
def test_every_neck_goes_with_every_kind_of_heads(neck: str, heads: str) -> None:
    model = build(neck, heads)
    loc, logits = model(torch.randn(2, 3, 96, 96))
    assert loc.shape == (2, len(model.priors), 4)
    assert logits.shape == (2, len(model.priors), 4)
    (loc.square().mean() + logits.square().mean()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not without


@pytest.mark.parametrize("heads", ["conv3x3", "conv1x1"])
def test_a_smaller_input_uses_the_first_levels(heads: str) -> None:
    model = build("fpn", heads).eval()
    loc, _ = model(torch.randn(1, 3, 64, 64))
    assert loc.shape[1] == len(model.priors_at(64)) < len(model.priors)


def test_projection_brings_every_map_to_one_width() -> None:
    model = build("none", "conv1x1")
    assert {head.in_channels for head in [*model.heads.loc, *model.heads.conf]} == {32}
    assert {head.kernel_size for head in model.heads.loc} == {(1, 1)}


def test_ssdlite_s_two_heads_have_filters_of_their_own_on_all_channels() -> None:
    """A channel of the map changes both outputs, and through each only its own filter."""
    model = build("none", "ssdlite").eval()
    depthwise = model.heads.adapters[0][0]
    x = torch.randn(1, depthwise.in_channels, 12, 12)
    loc, logits = model.heads.level(0, x)
    with torch.no_grad():
        depthwise.weight[6] = 5.0  # channel 3, for loc
    loc_after, logits_after = model.heads.level(0, x)
    assert not torch.equal(loc, loc_after)
    assert torch.equal(logits, logits_after)


def test_ssdlite_has_about_as_many_weights_as_torchvision_s() -> None:
    """The same maps, stages and heads; torchvision halves the channels of the last backbone block."""
    peer = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21)
    ours = SSD(paper_config("mobilenet_v3_large", 320, 21, heads="ssdlite"))
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(ours.heads) == pytest.approx(count(peer.head), rel=0.25)
    assert count(ours.auxiliary) == pytest.approx(count(peer.backbone.extra), rel=0.4)


def test_the_pyramid_is_torchvision_s() -> None:
    channels, width = [8, 16, 24], 12
    ours, peer = FPN(channels, width), FeaturePyramidNetwork(channels, width)
    for level in range(3):
        for own, other in ((ours.lateral, peer.inner_blocks), (ours.output, peer.layer_blocks)):
            other[level][0].load_state_dict(own[level].state_dict())
    maps = [torch.randn(1, number, side, side) for number, side in zip(channels, (9, 5, 3), strict=True)]
    expected = peer({str(level): x for level, x in enumerate(maps)})
    for found, wanted in zip(ours(maps), expected.values(), strict=True):
        torch.testing.assert_close(found, wanted)
