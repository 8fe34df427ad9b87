"""torchvision's published weights: whatever lies in their place or comes from the server, only they load."""

from dataclasses import dataclass
from pathlib import Path

import loopback as lb
import pytest
import torch
from loopback import Loopback
from malicious import Malicious, check_it_works
from torchvision import models
from torchvision.models import resnet18

from ssd.errors import UserError
from ssd.files import sha256
from ssd.models import published
from ssd.models.config import paper_config
from ssd.models.published import SHA256, imagenet_weights, published_file
from ssd.models.ssd import SSD
from ssd.models.weights import load_weights

State = dict[str, torch.Tensor]


@dataclass
class Url:
    """What torchvision's weights are here: a URL."""

    url: str


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's hub folder, where messages tell to put a file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "home/hub/checkpoints"


@pytest.fixture(scope="module")
def state() -> State:
    return resnet18(weights=None).state_dict()


def build() -> SSD:
    return SSD(paper_config("resnet18", 64, 3))


def saved(content: object, folder: Path) -> tuple[str, bytes]:
    """A file as torchvision publishes it: its name, which ends with the first digits of its digest; bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "plain.pth")
    return f"resnet18-{sha256(folder / 'plain.pth')[:8]}.pth", (folder / "plain.pth").read_bytes()


def publish(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "imagenet_weights", lambda _: Url(url))


def refusal() -> str:
    """Why nothing was loaded, in one line."""
    model = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, "imagenet")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert caught.value.key == "model.weights"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_imagenet_weights_are_downloaded_once_and_then_used(
    state: State, server: Loopback, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, content = saved(state, tmp_path)
    publish(server.serve(f"/{name}", content), monkeypatch)
    for _ in range(2):
        model = build()
        load_weights(model, "imagenet")
        assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
    assert server.requests == [(f"/{name}", None), (f"/{name}", None)], "their length, and they themselves"
    assert (place / name).read_bytes() == content


def test_a_broken_download_is_resumed(
    state: State, server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, content = saved(state, tmp_path)
    publish(server.serve(f"/{name}", content, lb.ok, lb.dies_after(10**6), lb.ok), monkeypatch)
    monkeypatch.setattr("ssd.fetch.time.sleep", lambda _: None)
    load_weights(build(), "imagenet")
    assert (server.ranges(f"/{name}")[-1] or "").startswith("bytes=")


def test_a_file_that_was_put_in_its_place_needs_no_network(
    state: State, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, content = saved(state, tmp_path)
    place.mkdir(parents=True)
    (place / name).write_bytes(content)
    publish(f"http://127.0.0.1:9/{name}", monkeypatch)
    model = build()
    load_weights(model, "imagenet")
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("weights", ["imagenet", "coco"])
def test_a_pickle_in_place_of_the_published_file_is_not_run(
    weights: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real names, with nothing replaced: the digest is wrong."""
    check_it_works(tmp_path)
    file = published_file("resnet18", weights)
    place.mkdir(parents=True)
    torch.save({"conv1.weight": Malicious(tmp_path / "was_run")}, place / file.name)
    with pytest.raises(UserError, match=f"{file.name}: not the file that was published: sha256 is"):
        load_weights(build(), weights)
    assert not (tmp_path / "was_run").exists()


def test_a_pickle_with_the_right_digest_is_not_run(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digits of a name can be met by trying: the digest alone protects from nobody."""
    name, content = saved({"conv1.weight": Malicious(tmp_path / "was_run")}, tmp_path)
    place.mkdir(parents=True)
    (place / name).write_bytes(content)
    publish(f"http://127.0.0.1:9/{name}", monkeypatch)
    assert "not a state dict that loads without pickle" in refusal()
    assert not (tmp_path / "was_run").exists()


def test_a_pickle_that_the_server_sends_is_not_run(
    server: Loopback, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, content = saved({"conv1.weight": Malicious(tmp_path / "was_run")}, tmp_path)
    publish(server.serve(f"/{name}", content), monkeypatch)
    assert "without pickle" in refusal()
    publish(server.serve("/resnet18-00000000.pth", content), monkeypatch)
    assert "wrong sha256" in refusal()
    assert not (tmp_path / "was_run").exists()
    assert not (place / "resnet18-00000000.pth").exists()


def test_another_state_dict_in_place_of_the_published_one_is_refused(state: State, place: Path) -> None:
    place.mkdir(parents=True)
    torch.save(state, place / "resnet18-f37072fd.pth")
    text = refusal()
    assert f"{place / 'resnet18-f37072fd.pth'}: not the file that was published" in text
    assert SHA256["resnet18-f37072fd.pth"] in text
    assert "delete it and run again" in text


def test_a_failed_download_says_which_file_to_put_where(
    server: Loopback, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(f"{server.base}/missing-00000000.pth", monkeypatch)
    text = refusal()
    assert f"{server.base}/missing-00000000.pth: HTTP 404" in text
    assert f"put missing-00000000.pth into {place}" in text


def test_coco_weights_come_the_same_way(
    state: State, server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a small network's stand for them: tests/models/test_weights.py loads a whole detector."""
    assert published_file("vgg16", "coco").name == "ssd300_vgg16_coco-b556d3b4.pth"
    name, content = saved(state, tmp_path)
    monkeypatch.setattr(published, "COCO_WEIGHTS", Url(server.serve(f"/{name}", content)))
    model = build()
    load_weights(model, "coco")
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])


def test_of_every_published_file_a_digest_is_known() -> None:
    """Its first digits at least; whole digests begin with those of the name."""
    files = [published_file("vgg16", "coco"), published_file("resnet34_conv4", "imagenet")]
    for name in models.list_models(module=models):
        try:
            files.append(published_file(name, "imagenet"))
        except UserError as error:
            assert "torchvision has no imagenet weights for" in str(error)
    assert len(files) > 70
    for file in files:
        assert len(file.sha256) >= 8
        assert f"-{file.sha256[:8]}" in file.name
    assert {file.name for file in files if len(file.sha256) == 64} == SHA256.keys()


def test_weights_without_a_digest_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    publish("http://127.0.0.1:9/resnet18.pth", monkeypatch)
    assert "torchvision states no digest of http://127.0.0.1:9/resnet18.pth; download it" in refusal()


def test_vgg16_starts_from_the_weights_of_ssd_s_authors() -> None:
    assert imagenet_weights("vgg16").url.endswith("vgg16_features-amdegroot-88682ab5.pth")
