"""VGG16's first convolution gets the values that its weights were trained on, or there is an error."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ssd.detector import Detector
from ssd.errors import UserError
from ssd.export.torchscript import open_torchscript, to_torchscript
from ssd.files import sha256, write_bytes
from ssd.loading.batch_augment import normalise
from ssd.loss import LossSettings
from ssd.models import input_scale as module
from ssd.models.config import paper_config
from ssd.models.input_scale import resolve_input_scale
from ssd.models.saved import load_model, save_model
from ssd.models.ssd import SSD
from ssd.models.vgg import InputScale, VGG16Features
from ssd.postprocess import PostProcessSettings

FEATURES = {"features.0.weight": torch.ones(2), "features.28.weight": torch.ones(2)}
DETECTOR = {
    "backbone.scale_weight": torch.ones(2),
    "head.classification_head.module_list.0.bias": torch.ones(2),
    "head.regression_head.module_list.0.bias": torch.ones(2),
}
CLASSIFIER = {"classifier.0.weight": torch.ones(2)}
BLACK_AND_WHITE = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 16, 16)


def conv1_input(scale: InputScale) -> tuple[float, float]:
    """The least and the largest value that conv1_1 gets, of a black and of a white image."""
    backbone, seen = VGG16Features(scale), []
    backbone.features[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    backbone(normalise(BLACK_AND_WHITE))
    return seen[0].min().item(), seen[0].max().item()


def test_conv1_1_gets_normalised_values_or_caffe_s() -> None:
    assert conv1_input("imagenet") == pytest.approx((-2.118, 2.640), abs=1e-3)
    assert conv1_input("caffe") == pytest.approx((-123.0, 151.0), abs=1e-2)


@pytest.mark.parametrize(
    ("state", "scale"),
    [
        (DETECTOR, "caffe"),
        (FEATURES | {"classifier.0.weight": torch.full((2,), torch.nan)}, "caffe"),
        ({"layer1.0.conv1.weight": torch.ones(2)}, "imagenet"),
    ],
    ids=["ssd300_vgg16", "IMAGENET1K_FEATURES", "no VGG16, refused later"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_known_by_what_is_certain(
    state: dict[str, Tensor], scale: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    assert resolve_input_scale("auto", "vgg16", str(file)) == scale


def test_torchvision_s_own_files_are_known_by_their_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(FEATURES | CLASSIFIER, tmp_path / "renamed.pth")
    digest = sha256(tmp_path / "renamed.pth")[:8]
    monkeypatch.setattr(module, "SCALE_OF_URL", {f"https://host/vgg16-{digest}.pth": "imagenet"})
    assert resolve_input_scale("auto", "vgg16", str(tmp_path / "renamed.pth")) == "imagenet"


def test_the_digests_are_those_of_torchvision_s_addresses() -> None:
    assert {Path(url).name: scale for url, scale in module.SCALE_OF_URL.items()} == {
        "vgg16-397923af.pth": "imagenet",
        "vgg16_features-amdegroot-88682ab5.pth": "caffe",
    }


@pytest.mark.parametrize("state", [FEATURES, FEATURES | CLASSIFIER], ids=["no classifier", "whole"])
def test_any_other_vgg16_needs_the_setting(state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(state, file)
    with pytest.raises(UserError, match=r"^model.input_scale: .*w.pth.*allowed: imagenet .* caffe ") as error:
        resolve_input_scale("auto", "vgg16", str(file))
    assert "\n" not in str(error.value)
    assert resolve_input_scale("imagenet", "vgg16", str(file)) == "imagenet"
    assert resolve_input_scale("caffe", "vgg16", str(file)) == "caffe"


@pytest.mark.parametrize(
    ("asked", "backbone", "weights", "scale"),
    [
        ("auto", "vgg16", "none", "imagenet"),
        ("caffe", "vgg16", "none", "caffe"),
        ("auto", "vgg16", "imagenet", "caffe"),
        ("auto", "vgg16", "coco", "caffe"),
        ("auto", "resnet18", "imagenet", "imagenet"),
        ("imagenet", "vgg16_bn", "anything.pth", "imagenet"),
    ],
)
def test_without_a_file_the_weights_decide(
    asked: InputScale, backbone: str, weights: str, scale: str
) -> None:
    assert resolve_input_scale(asked, backbone, weights) == scale


@pytest.mark.parametrize(
    ("asked", "backbone", "weights", "message"),
    [
        ("imagenet", "vgg16", "coco", "found imagenet; allowed with vgg16's weights coco"),
        ("imagenet", "vgg16", "imagenet", "found imagenet; allowed with vgg16's weights imagenet"),
        ("caffe", "resnet18", "none", "found caffe; allowed for resnet18: auto, imagenet"),
    ],
)
def test_a_contradiction_is_one_clear_line(
    asked: InputScale, backbone: str, weights: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"^model.input_scale: {message}"):
        resolve_input_scale(asked, backbone, weights)


def test_the_model_file_and_the_export_carry_it(tmp_path: Path) -> None:
    """The files find what the network finds, and that is not what it finds without the scale."""
    model = SSD(paper_config("vgg16", 64, 3, input_scale="caffe")).eval()
    loss_settings = asdict(LossSettings())
    save_model(tmp_path / "model.pt", model.state_dict(), model.config, ["cat", "dog"], loss_settings)
    settings = PostProcessSettings(1e-3, max_detections=5)
    detector = Detector(load_model(tmp_path / "model.pt")[0], settings)
    write_bytes(tmp_path / "ssd.pt", to_torchscript(detector, ["cat", "dog"]))
    run, _ = open_torchscript(tmp_path / "ssd.pt")
    images = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    with torch.inference_mode():
        caffe = Detector(model, settings)(images)[1]
        model.backbone.rescale = torch.nn.Identity()
        imagenet = Detector(model, settings)(images)[1]
    torch.testing.assert_close(run(images)[1], caffe, atol=1e-4, rtol=0)
    assert (imagenet - caffe).abs().max() > 0.01
