"""Backbones: the maps that are asked for, from any network, and their parts in order."""

import copy

import pytest
import torch

from ssd.errors import UserError
from ssd.models.auxiliary import NORMED
from ssd.models.backbones import ResNetFeatures, build_backbone
from ssd.models.config import paper_config
from ssd.models.feature_maps import map_shapes
from ssd.models.ssd import SSD

KNOWN = {
    "resnet18": [(128, 12), (256, 6), (512, 3)],
    "resnet101": [(512, 12), (1024, 6), (2048, 3)],
    "resnet18_conv4": [(256, 12)],
    "resnet50_conv4": [(1024, 12)],
    "vgg16": [(512, 12), (1024, 6)],
    "mobilenet_v3_large": [(672, 6), (960, 3)],
    "efficientnet_b0": [(40, 12), (112, 6), (1280, 3)],
    "efficientnet_b3": [(48, 12), (136, 6), (1536, 3)],
    "regnet_y_400mf": [(104, 12), (208, 6), (440, 3)],
    "timm/test_convnext": [(32, 12), (48, 6), (64, 3)],
}


@pytest.mark.parametrize("name", KNOWN)
def test_maps_have_the_usual_strides(name: str) -> None:
    own, _ = map_shapes(name, (), NORMED, 96)
    assert [(channels, side) for channels, side, _ in own] == KNOWN[name]


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet18", (4, 8)),
        ("resnet18", (8, 32)),
        ("resnet34_conv4", (4, 8)),
        ("efficientnet_b0", (4, 32)),
        ("timm/test_convnext", (8, 16)),
    ],
)
def test_other_strides_can_be_asked_for(name: str, strides: tuple[int, ...]) -> None:
    maps = build_backbone(name, strides).eval()(torch.zeros(1, 3, 96, 96))
    assert [96 // x.shape[-1] for x in maps] == list(strides)


def test_vgg16_has_the_paper_s_maps() -> None:
    """38x38 from conv4_3, of one length in every cell; 19x19 from fc7."""
    backbone = build_backbone("vgg16").eval()
    with torch.inference_mode():
        conv4, fc7 = backbone(torch.randn(1, 3, 300, 300))
    assert (conv4.shape, fc7.shape) == ((1, 512, 38, 38), (1, 1024, 19, 19))
    torch.testing.assert_close(conv4.norm(dim=1), torch.full((1, 38, 38), 20.0))


def test_conv4_is_the_same_layer_at_twice_the_resolution() -> None:
    """Every second cell of the first convolutions at stride 1 is a cell of those at stride 2."""
    torch.manual_seed(0)
    cut, whole = build_backbone("resnet18_conv4").eval(), build_backbone("resnet18", (8, 16)).eval()
    whole.load_state_dict(cut.state_dict())
    assert isinstance(cut, ResNetFeatures)
    assert isinstance(whole, ResNetFeatures)
    x = torch.randn(1, 128, 12, 12)
    with torch.inference_mode():
        found, expected = cut.layer3[0].downsample(x), whole.layer3[0].downsample(x)
        torch.testing.assert_close(found[:, :, ::2, ::2], expected)
        torch.testing.assert_close(cut.layer3[0].conv1(x)[:, :, ::2, ::2], whole.layer3[0].conv1(x))


@pytest.mark.parametrize(("backbone", "channels"), [("resnet34_conv4", 256), ("resnet50_conv4", 1024)])
def test_ssd300_after_conv4_is_that_of_mlperf_and_nvidia(backbone: str, channels: int) -> None:
    """38x38, 19x19, 10x10, 5x5, 3x3 and 1x1; 1x1 convolutions to half of the channels; 8732 priors."""
    config = paper_config(backbone, 300, 81, 0.07, 0.15)
    own, more = config.map_shapes()
    assert own == ((channels, 38, 38),)
    assert more == ((512, 19, 19), (512, 10, 10), (256, 5, 5), (256, 3, 3), (256, 1, 1))
    model = SSD(config)
    assert [stage[0].out_channels for stage in model.auxiliary] == [256, 256, 128, 128, 128]
    assert [(stage[3].stride, stage[3].padding) for stage in model.auxiliary] == [((2, 2), (1, 1))] * 3 + [
        ((1, 1), (0, 0))
    ] * 2
    assert [head.out_channels // 4 for head in model.heads.loc] == [4, 6, 6, 6, 4, 4]
    assert len(model.priors) == 8732


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in ("resnet101", "resnet50_conv4")])
def test_stages_hold_every_parameter_once_in_the_order_of_the_data(name: str) -> None:
    backbone = build_backbone(name)
    stages = backbone.stages()
    assert len(stages) == (4 if name.endswith("_conv4") else 5)
    parameters = [id(p) for stage in stages for module in stage for p in module.parameters()]
    assert len(parameters) == len(set(parameters))
    missing = {n for n, p in backbone.named_parameters() if id(p) not in set(parameters)}
    assert missing <= {"conv4_scale"}


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "timm/test_convnext"])
def test_a_network_found_by_name_can_be_copied_and_switches_its_mode(name: str) -> None:
    """As the averaged weights and the evaluation need it."""
    backbone = copy.deepcopy(build_backbone(name)).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        together, alone = backbone(images)[-1][:1], backbone(images[:1])[-1]
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "strides", "message"),
    [
        ("resnet19", (), r"model.backbone: found 'resnet19'; allowed: .*resnet1"),
        (
            "fasterrcnn_resnet50_fpn",
            (),
            r"model.backbone: found 'fasterrcnn_resnet50_fpn'; allowed: a classif",
        ),
        ("timm/resnet1x", (), r"model.backbone: timm/resnet1x has no feature maps .*did you mean timm/"),
        ("vgg16", (8, 32), r"model.strides: found \[8, 32\]; allowed for vgg16: \[8, 16\], or \[\]"),
        (
            "resnet18",
            (2, 8),
            r"model.strides: found \[2, 8\]; allowed for resnet18: some of \[4, 8, 16, 32\]",
        ),
        ("squeezenet1_1", (), r"model.backbone: squeezenet1_1 has no feature maps of 1/8, 1/16 or 1/32"),
        (
            "timm/vit_tiny_patch16_224",
            (),
            r"model.backbone: .* has feature maps of strides \[16\], not 8, 16 and 32",
        ),
        ("efficientnet_b0", (2, 8, 64), r"model.strides: found \[2, 8, 64\]; efficientnet_b0 has feature"),
        ("resnet18_conv4", (8, 16), r"model.strides: .*allowed for resnet18_conv4: some of \[4, 8\]"),
        ("resnet19_conv4", (), r"model.backbone: found 'resnet19_conv4'; allowed: "),
        (
            "vit_b_16",
            (),
            r"model.backbone: vit_b_16 does not take images of every size: .* 256x256 pixels \(Wrong",
        ),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(name: str, strides: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build_backbone(name, strides)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("model.")
