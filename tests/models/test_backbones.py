"""Backbones: the maps that are asked for, from any network, and their parts in order."""

import copy

import pytest
import torch

from ssd.errors import UserError
from ssd.models.backbones import build_backbone
from ssd.models.feature_maps import map_shapes

KNOWN = {
    "resnet18": [(128, 12), (256, 6), (512, 3)],
    "resnet101": [(512, 12), (1024, 6), (2048, 3)],
    "vgg16": [(512, 12), (1024, 6)],
    "mobilenet_v3_large": [(672, 6), (960, 3)],
    "efficientnet_b0": [(40, 12), (112, 6), (1280, 3)],
    "efficientnet_b3": [(48, 12), (136, 6), (1536, 3)],
    "regnet_y_400mf": [(104, 12), (208, 6), (440, 3)],
    "timm/test_convnext": [(32, 12), (48, 6), (64, 3)],
}


@pytest.mark.parametrize("name", KNOWN)
def test_maps_have_the_usual_strides(name: str) -> None:
    own, _ = map_shapes(name, (), "normed", 96)
    assert [(channels, side) for channels, side, _ in own] == KNOWN[name]


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("resnet18", (4, 8)),
        ("resnet18", (8, 32)),
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


@pytest.mark.parametrize("name", [name for name in KNOWN if name != "resnet101"])
def test_stages_hold_every_parameter_once_in_the_order_of_the_data(name: str) -> None:
    backbone = build_backbone(name)
    stages = backbone.stages()
    assert len(stages) == 5
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
        ("vit_b_16", (), r"model.backbone: vit_b_16 has no usable feature maps \(Wrong image height"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(name: str, strides: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build_backbone(name, strides)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("model.")
