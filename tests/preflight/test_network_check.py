"""The check of backbone and weights: each thing that can be missing is a finding; nothing is fetched."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import loopback as lb
import pytest
import torch
from default_params import default_params
from loopback import Loopback
from safetensors.torch import save_file
from torchvision.models import resnet18, vgg16
from torchvision.models.detection import ssd300_vgg16

from ssd.models import backbones, published
from ssd.params import ModelParams
from ssd.preflight import hosts
from ssd.preflight.finding import Finding
from ssd.preflight.network import BUILT_IN_BACKBONES, check_network

CONTENT = b"weights"
NAME = f"resnet18-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@dataclass
class Published:
    """What torchvision's weights are here: a URL."""

    url: str


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's hub folder, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home/hub/checkpoints"


def model(**changes: object) -> ModelParams:
    return default_params(**{f"model.{key}": value for key, value in changes.items()}).model


def check_imagenet(url: str, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.setattr(published, "imagenet_weights", lambda _: Published(url))
    return check_network(model(weights="imagenet"), "imagenet")


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    assert finding.fatal
    assert "\n" not in finding.text
    return finding


def test_a_usual_backbone_from_scratch_needs_nothing() -> None:
    assert check_network(model(), "none") == []
    assert set(BUILT_IN_BACKBONES) == {*backbones.RESNETS, "vgg16"}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"backbone": "resnt50"}, "model.backbone"),
        ({"strides": [2]}, "model.strides"),
        ({"family": "faster_rcnn", "backbone": "vgg16"}, "model.backbone"),
    ],
)
def test_a_backbone_that_is_unknown_or_lacks_a_stride_is_found(changes: dict[str, object], key: str) -> None:
    assert only(check_network(model(**changes), "none")).key == key


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"prior_steps": [8.0]}, "model.prior_steps"),
        ({"input_scale": "caffe"}, "model.input_scale"),
        ({"backbone": "vgg16", "input_scale": "imagenet", "weights": "imagenet"}, "model.input_scale"),
    ],
)
def test_settings_that_contradict_each_other_are_found(
    changes: dict[str, object], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd.preflight.network._check_published", lambda *_: [])
    assert only(check_network(model(**changes), model(**changes).weights)).key == key


def test_a_whole_vgg16_of_unknown_origin_is_found(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = vgg16().state_dict()
    kept = {key: torch.zeros(value.shape) for key, value in state.items() if key.startswith("features.")}
    save_file(kept, tmp_path / "vgg.safetensors")
    finding = only(check_network(model(backbone="vgg16"), str(tmp_path / "vgg.safetensors")))
    assert finding.key == "model.input_scale"


def test_timm_that_is_not_installed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    finding = only(check_network(model(backbone="timm/resnet10t"), "none"))
    assert finding.key == "model.backbone"
    assert "pip install timm" in finding.text


def test_weights_that_nobody_publishes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "get_model_weights", lambda _: [])
    finding = only(check_network(model(weights="imagenet"), "imagenet"))
    assert finding == Finding(
        "model.weights", "torchvision has no imagenet weights for resnet18; allowed: none, a file"
    )


def test_weights_in_torch_s_cache_are_enough(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT)
    assert check_imagenet(f"http://127.0.0.1:9/{NAME}", monkeypatch) == []


def test_damaged_weights_in_torch_s_cache_are_found(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT[:-1])
    finding = only(check_imagenet(f"http://127.0.0.1:9/{NAME}", monkeypatch))
    assert finding.key == "model.weights"
    assert finding.text.startswith(f"{cache / NAME}: not the file that was published")


def test_the_host_is_asked_for_weights_and_sends_nothing(
    server: Loopback, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_imagenet(server.serve(f"/{NAME}", CONTENT), monkeypatch) == []
    assert (server.heads, server.requests) == ([f"/{NAME}"], [])
    assert not cache.exists()


def test_weights_that_the_host_lacks_are_found(
    server: Loopback, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.base}/{NAME}"
    text = only(check_imagenet(url, monkeypatch)).text
    assert "cannot be downloaded (127.0.0.1: HTTP 404)" in text
    assert f"put {url} into {cache}" in text


def test_without_a_network_the_place_of_the_file_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "unavailable_reason", lambda *_: "no connection, or it was lost")
    text = only(check_network(model(weights="coco", backbone="vgg16", input_size=300), "coco")).text
    assert text.startswith("the coco weights of vgg16 are not on this machine and cannot be downloaded (")
    assert f"put {published.COCO_WEIGHTS.url} into {cache}" in text


def test_a_host_that_drops_everything_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a firewall or a name server does: the wait is bounded, however many files there are."""
    release = lb.threading.Event()
    monkeypatch.setattr(hosts, "TIMEOUT_S", -0.95)
    monkeypatch.setattr(hosts, "unavailable_reason", lambda *_: str(release.wait(30)))
    urls = [f"http://host{number}/a" for number in range(9)]
    assert all("no answer in" in reason for reason in hosts.probe(dict.fromkeys(urls)).values())
    release.set()


def test_a_file_of_the_backbone_is_accepted_and_another_s_is_found(tmp_path: Path) -> None:
    save_file(resnet18(weights=None).state_dict(), tmp_path / "r18.safetensors")
    assert check_network(model(), str(tmp_path / "r18.safetensors")) == []
    finding = only(check_network(model(backbone="resnet34"), str(tmp_path / "r18.safetensors")))
    assert finding.key == "model.weights"
    assert "does not fit resnet34" in finding.text


def test_a_detector_is_for_vgg16_at_300_whatever_its_classes(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=3).state_dict()
    torch.save({key: torch.zeros(value.shape) for key, value in state.items()}, tmp_path / "d.pth")
    fitting = model(backbone="vgg16", input_size=300, priors="kmeans")
    assert check_network(fitting, str(tmp_path / "d.pth")) == []
    finding = only(check_network(model(backbone="vgg16", input_size=512), str(tmp_path / "d.pth")))
    assert "it fits backbone: vgg16, input_size: 300" in finding.text


@pytest.mark.parametrize("content", [None, b"not a state dict"])
def test_a_file_that_is_missing_or_unreadable_is_found(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    if content is not None:
        path.write_bytes(content)
    finding = only(check_network(model(), str(path)))
    assert finding.key == "model.weights"
    assert finding.text.startswith(f"{path}: no" if content is None else f"{path}: not a state dict")
