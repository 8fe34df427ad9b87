"""Starting weights: torchvision's, a file's, or none; never a silent start from scratch."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from ssd.errors import UserError
from ssd.models import backbones
from ssd.models.backbones import build_backbone, load_backbone_weights


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A whole torchvision state dict, classifier included."""
    return resnet18(weights=None).state_dict()


def test_maps_have_strides_8_16_and_32() -> None:
    maps = build_backbone("resnet18").eval()(torch.zeros(1, 3, 96, 96))
    assert [tuple(x.shape[1:]) for x in maps] == [(128, 12, 12), (256, 6, 6), (512, 3, 3)]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torchvision_state_dict_loads_from_a_file(state: dict, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    backbone = build_backbone("resnet18")
    load_backbone_weights(backbone, "resnet18", str(file))
    assert torch.equal(backbone.conv1.weight, state["conv1.weight"])
    assert torch.equal(backbone.layer4[1].bn2.running_var, state["layer4.1.bn2.running_var"])


def test_weights_of_another_backbone_are_refused(state: dict, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"params.yaml: model.weights: .*w.pth does not fit resnet50"):
        load_backbone_weights(build_backbone("resnet50"), "resnet50", str(tmp_path / "w.pth"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model.weights: .*nowhere.pth: no such file; allowed: imagenet, none"
    ):
        load_backbone_weights(build_backbone("resnet18"), "resnet18", str(tmp_path / "nowhere.pth"))


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "was_run",)

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="without pickle"):
        load_backbone_weights(build_backbone("resnet18"), "resnet18", str(tmp_path / "evil.pth"))
    assert not (tmp_path / "was_run").exists()


def test_a_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="not a state dict"):
        load_backbone_weights(build_backbone("resnet18"), "resnet18", str(tmp_path / "text.pth"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An HTTP server on loopback over tmp_path/served."""
    served = tmp_path / "served"
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(served))

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


class Published:
    """Stands in for torchvision's weights enum, with its own way of fetching but another address."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get_state_dict(self, **kwargs: bool) -> dict[str, torch.Tensor]:
        return torch.hub.load_state_dict_from_url(self.url, weights_only=True, **kwargs)


def test_imagenet_weights_are_fetched_and_checked(
    state: dict, server: str, tmp_path: Path, monkeypatch
) -> None:
    from ssd.files import sha256

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    plain = tmp_path / "served" / "plain.pth"
    torch.save(state, plain)
    name = f"resnet18-{sha256(plain)[:8]}.pth"
    plain.rename(plain.with_name(name))
    monkeypatch.setitem(backbones.IMAGENET_WEIGHTS, "resnet18", Published(f"{server}/{name}"))
    backbone = build_backbone("resnet18")
    load_backbone_weights(backbone, "resnet18", "imagenet")
    assert torch.equal(backbone.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet18-00000000.pth", "missing-00000000.pth"])
def test_a_failed_fetch_says_which_file_to_put_where(
    name: str, state: dict, server: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    torch.save(state, tmp_path / "served" / "resnet18-00000000.pth")
    monkeypatch.setitem(backbones.IMAGENET_WEIGHTS, "resnet18", Published(f"{server}/{name}"))
    with pytest.raises(UserError) as caught:
        load_backbone_weights(build_backbone("resnet18"), "resnet18", "imagenet")
    message = str(caught.value)
    assert "\n" not in message
    assert f"put {server}/{name} into {tmp_path / 'home' / 'hub' / 'checkpoints'}" in message
