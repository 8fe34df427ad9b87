"""Starting weights: torchvision's, a file's, or none; never a silent start from scratch."""

from pathlib import Path

import pytest
import torch
from malicious import Malicious
from safetensors.torch import save_file
from torchvision.models import mobilenet_v3_large, resnet18, vgg16
from torchvision.models.detection import ssd300_vgg16

from ssd.errors import UserError
from ssd.models.config import paper_config
from ssd.models.ssd import SSD
from ssd.models.torchvision_ssd import ssd300_vgg16_config
from ssd.models.weights import load_weights


def build(backbone: str = "resnet18") -> SSD:
    return SSD(paper_config(backbone, 64, 3))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A whole torchvision state dict, classifier included."""
    return resnet18(weights=None).state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torchvision_state_dict_loads_from_a_file(state: dict, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    model = build()
    load_weights(model, str(file))
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
    assert torch.equal(model.backbone.layer4[1].bn2.running_var, state["layer4.1.bn2.running_var"])


def test_layers_after_the_last_map_are_left_out(state: dict, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    model = SSD(paper_config("resnet18", 64, 3, strides=(8, 16)))
    load_weights(model, str(tmp_path / "w.pth"))
    assert torch.equal(model.backbone.layer3[0].conv1.weight, state["layer3.0.conv1.weight"])


def test_a_network_found_by_name_loads_torchvision_s_state(tmp_path: Path) -> None:
    published = mobilenet_v3_large(weights=None).state_dict()
    torch.save(published, tmp_path / "w.pth")
    model = SSD(paper_config("mobilenet_v3_large", 96, 3))
    load_weights(model, str(tmp_path / "w.pth"))
    name = "features.12.block.1.1.running_mean"
    assert torch.equal(model.backbone.state_dict()[f"body.{name}"], published[name])


def test_a_timm_network_loads_a_file_of_timm_s(tmp_path: Path) -> None:
    import timm

    published = timm.create_model("test_convnext", pretrained=False).state_dict()
    save_file(published, tmp_path / "model.safetensors")
    model = SSD(paper_config("timm/test_convnext", 64, 3))
    load_weights(model, str(tmp_path / "model.safetensors"))
    own = {value.sum().item() for value in model.backbone.state_dict().values()}
    assert published["stages.1.blocks.0.conv_dw.weight"].sum().item() in own
    with pytest.raises(
        UserError, match=r"model.weights: found 'imagenet'; allowed for timm/test_convnext: none"
    ):
        load_weights(model, "imagenet")


def test_vgg16_s_classifier_becomes_convolutions_by_sub_sampling(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = vgg16(weights=None)
    torch.manual_seed(0)
    published = {name: torch.randn(value.shape) * 0.01 for name, value in network.state_dict().items()}
    torch.save(published, tmp_path / "w.pth")
    model = SSD(paper_config("vgg16", 64, 3))
    load_weights(model, str(tmp_path / "w.pth"))
    assert torch.equal(model.backbone.features[28].weight, published["features.28.weight"])
    fc6, fc7 = published["classifier.0.weight"].view(4096, 512, 7, 7), published["classifier.3.weight"]
    weight = model.backbone.fc6.weight
    assert weight.shape == (1024, 512, 3, 3)
    assert weight[5, 7, 1, 2] == fc6[20, 7, 3, 6]
    assert model.backbone.fc7.weight[3, 9, 0, 0] == fc7[12, 36]
    assert model.backbone.fc7.bias[10] == published["classifier.3.bias"][40]


@pytest.fixture(scope="module")
def detector() -> dict[str, torch.Tensor]:
    """A state dict of torchvision's ssd300_vgg16 with the classes of COCO."""
    return ssd300_vgg16(weights=None, weights_backbone=None).state_dict()


def test_torchvision_s_detector_loads_from_a_file(
    detector: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole where the classes agree; else the class heads are randomly initialised, with a warning."""
    torch.save(detector, tmp_path / "detector.pth")
    head = "head.classification_head.module_list.3.weight"
    same = SSD(ssd300_vgg16_config())
    load_weights(same, str(tmp_path / "detector.pth"))
    assert torch.equal(same.heads.conf[3].weight, detector[head])
    assert caplog.text == ""
    other = SSD(ssd300_vgg16_config(21))
    fresh = other.heads.conf[3].weight.clone()
    load_weights(other, str(tmp_path / "detector.pth"))
    assert torch.equal(other.heads.conf[3].weight, fresh)
    assert torch.equal(other.heads.loc[3].weight, detector["head.regression_head.module_list.3.weight"])
    assert "has 91 classes, the data set has 21" in caplog.text


def test_other_priors_than_torchvision_s_are_said(
    detector: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(detector, tmp_path / "detector.pth")
    load_weights(SSD(paper_config("vgg16", 300, 91)), str(tmp_path / "detector.pth"))
    assert "trained with other priors" in caplog.text


def test_a_detector_that_is_built_otherwise_is_refused(
    detector: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(detector, tmp_path / "detector.pth")
    with pytest.raises(UserError, match=r"it fits backbone: vgg16, input_size: 300, neck: none"):
        load_weights(build(), str(tmp_path / "detector.pth"))


@pytest.mark.parametrize(
    ("change", "num_classes"),
    [
        ({"backbone.features.0.weight": None}, 91),
        ({"backbone.features.0.weight": None}, 21),
        ({"backbone.features.0.weight": torch.zeros(1)}, 91),
        ({"backbone.somewhere.weight": torch.zeros(1)}, 91),
        ({"head.classification_head.module_list.1.bias": None}, 91),
        ({"head.regression_head.module_list.1.bias": None}, 21),
        ({"head.regression_head.module_list.0.bias": None}, 91),
    ],
)
def test_a_detector_with_other_tensors_is_refused(
    change: dict[str, torch.Tensor | None],
    num_classes: int,
    detector: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    changed = {key: value for key, value in (detector | change).items() if value is not None}
    save_file(changed, tmp_path / "detector.safetensors")
    with pytest.raises(UserError, match=r"model.weights: .* does not fit") as caught:
        load_weights(SSD(ssd300_vgg16_config(num_classes)), str(tmp_path / "detector.safetensors"))
    assert "\n" not in str(caught.value)


def test_a_vgg16_with_another_classifier_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = vgg16(weights=None).state_dict()
    published = {key: torch.zeros(value.shape) for key, value in names.items() if key.startswith("features")}
    published |= {f"classifier.{key}": torch.zeros(7) for key in ("0.weight", "0.bias", "3.weight", "3.bias")}
    save_file(published, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"model.weights: .*w.safetensors does not fit vgg16: shape"):
        load_weights(SSD(paper_config("vgg16", 64, 3)), str(tmp_path / "w.safetensors"))


def test_weights_of_another_network_do_not_fit_one_of_timm_s(state: dict, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    for backbone in ("timm/test_convnext", "timm/test_resnet"):
        with pytest.raises(UserError, match=rf"w.pth does not fit {backbone}"):
            load_weights(build(backbone), str(tmp_path / "w.pth"))


def test_a_timm_file_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    """timm itself would leave it at its random values, and say so in its log alone."""
    import timm

    published = timm.create_model("test_convnext", pretrained=False).state_dict()
    name = "stages.1.blocks.0.conv_dw.weight"
    for other in ({}, {"stages.1.blocks.0.conv_dw.wejght": published[name]}):
        save_file({k: v for k, v in published.items() if k != name} | other, tmp_path / "w.safetensors")
        with pytest.raises(UserError, match=r"w.safetensors does not fit timm/test_convnext: it lacks 1 of"):
            load_weights(build("timm/test_convnext"), str(tmp_path / "w.safetensors"))


def test_weights_of_another_backbone_are_refused(state: dict, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"model.weights: .*w.pth does not fit resnet50"):
        load_weights(build("resnet50"), str(tmp_path / "w.pth"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model.weights: .*nowhere.pth: no such file; allowed: imagenet, coco, none"
    ):
        load_weights(build(), str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_convnext"])
@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors", "evil"])
def test_a_pickle_is_not_run(backbone: str, name: str, tmp_path: Path) -> None:
    torch.save({"conv1.weight": Malicious(tmp_path / "was_run")}, tmp_path / name)
    with pytest.raises(UserError, match="without pickle"):
        load_weights(build(backbone), str(tmp_path / name))
    assert not (tmp_path / "was_run").exists()


def test_timm_does_not_read_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of its versions do it with pickle."""
    import timm

    torch.save(timm.create_model("test_convnext", pretrained=False).state_dict(), tmp_path / "w.pth")
    model = build("timm/test_convnext")
    load, calls = torch.load, []
    monkeypatch.setattr(
        torch, "load", lambda *given, **options: calls.append(options) or load(*given, **options)
    )
    load_weights(model, str(tmp_path / "w.pth"))
    assert [options["weights_only"] for options in calls] == [True]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_state_dict_is_refused_in_one_line(
    content: bytes, suffix: str, tmp_path: Path
) -> None:
    (tmp_path / f"text{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=r"model.weights: .*text\.\w+: not a state dict") as caught:
        load_weights(build(), str(tmp_path / f"text{suffix}"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("backbone", ["resnet18", "timm/test_convnext"])
def test_a_state_dict_without_anything_is_refused(backbone: str, suffix: str, tmp_path: Path) -> None:
    """timm would take it for no state dict at all, and download one."""
    file = tmp_path / f"w{suffix}"
    save_file({}, file) if suffix == ".safetensors" else torch.save({}, file)
    with pytest.raises(UserError, match=r"model.weights: .*an empty state dict"):
        load_weights(build(backbone), str(file))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")],
)
def test_too_little_memory_is_not_a_bad_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    torch.save({}, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UserError, match=r"w\.pth: not enough memory to read it"):
        load_weights(build(), str(tmp_path / "w.pth"))
