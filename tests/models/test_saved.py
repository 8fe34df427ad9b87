"""The model file: enough to rebuild the network, and nothing that runs code."""

import hashlib
import io
import zipfile
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from malicious import Malicious, check_it_works

from ssd.errors import UserError
from ssd.files import sha256
from ssd.loss import LossSettings
from ssd.models.config import paper_config
from ssd.models.saved import SEAL, load_loss_settings, load_model, save_model, sealed_zip
from ssd.models.ssd import SSD

CONFIG = paper_config("resnet18", 64, 3, 0.1, 0.2, 1.05)
SETTINGS = LossSettings(conf_loss="focal", box_loss="ciou", box_weight=2.5, match_iou=0.4)


@pytest.fixture(scope="module")
def model() -> SSD:
    return SSD(CONFIG).eval()


def test_round_trip(model: SSD, tmp_path: Path) -> None:
    save_model(tmp_path / "model.pt", model.state_dict(), CONFIG, ["cat", "dog"], asdict(SETTINGS))
    loaded, class_names = load_model(tmp_path / "model.pt")
    images = torch.randn(1, 3, 64, 64)
    assert class_names == ["cat", "dog"]
    assert LossSettings(**load_loss_settings(tmp_path / "model.pt")) == SETTINGS
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(model(images), loaded(images), strict=True))


def test_the_same_weights_give_the_same_bytes_whatever_the_name(model: SSD, tmp_path: Path) -> None:
    for name in ("a.pt", "another.pt"):
        save_model(tmp_path / name, model.state_dict(), CONFIG, ["cat", "dog"], asdict(SETTINGS))
    assert sha256(tmp_path / "a.pt") == sha256(tmp_path / "another.pt")


def test_torch_reads_the_file_by_itself(model: SSD, tmp_path: Path) -> None:
    """Mapped into memory or not; to other readers of zip files, too, it is one."""
    save_model(tmp_path / "model.pt", model.state_dict(), CONFIG, ["cat", "dog"], asdict(SETTINGS))
    for mapped in (False, True):
        content = torch.load(tmp_path / "model.pt", weights_only=True, mmap=mapped)
        assert content["format"] == "ssd-model-4"
        assert content["class_names"] == ["cat", "dog"]
        assert torch.equal(content["weights"]["backbone.conv1.weight"], model.backbone.conv1.weight)
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"ssd-model-4 ")


def refusal(path: Path) -> str:
    """Why a file is not read, whatever is asked of it: one line that names it."""
    messages = set()
    for load in (load_model, load_loss_settings):
        with pytest.raises(UserError, match=rf"{path.name}: ") as caught:
            load(path)
        messages.add(str(caught.value))
        assert caught.value.path == path
    (message,) = messages
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with few weights: it is read, though a network cannot be built from it."""
    path = tmp_path_factory.mktemp("small") / "model.pt"
    weights = {"a": torch.randn(300), "b": torch.arange(7)}
    save_model(path, weights, CONFIG, ["cat", "dog"], asdict(SETTINGS))
    assert LossSettings(**load_loss_settings(path)) == SETTINGS
    return path.read_bytes()


def test_every_flipped_bit_and_every_cut_is_found(small: bytes, tmp_path: Path) -> None:
    """A step of 7 is prime to the alignment of everything inside."""
    path = tmp_path / "model.pt"
    for place in range(0, len(small), 7):
        flipped = bytes([small[place] ^ 1 << place % 8])
        for content in (small[:place] + flipped + small[place + 1 :], small[:place]):
            path.write_bytes(content)
            with pytest.raises(UserError, match=r"model.pt: (damaged|not a model file)"):
                load_loss_settings(path)


def test_two_files_in_one_are_found(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_model(path, {"a": torch.randn(300)}, CONFIG, ["cat", "dog"], asdict(SETTINGS))
    other = path.read_bytes()
    half = len(small) // 2
    spliced = [
        small[:half] + other[half:],
        other + small,
        small + b"\0",
        b"\0" + small,
        small[:-64] + other[-64:],
    ]
    for content in spliced:
        path.write_bytes(content)
        refusal(path)


def test_one_flipped_bit_of_a_weight_is_found(model: SSD, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_model(path, model.state_dict(), CONFIG, ["cat", "dog"], asdict(SETTINGS))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True), "torch itself does not see it"
    assert refusal(path).endswith("model.pt: damaged: its content does not match its SHA-256")


FOREIGN = {
    "empty": b"",
    "text": b"hello",
    "zip": b"PK\x05\x06" + bytes(18),
    "only a digest": b"ssd-model-4 " + hashlib.sha256(b"ssd-model-4 ").hexdigest().encode(),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_of_something_else_is_one_clear_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    refusal(tmp_path / "model.pt")


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    assert refusal(tmp_path / "model.pt").endswith("model.pt: not found")


def test_what_another_program_wrote_is_refused(model: SSD, small: bytes, tmp_path: Path) -> None:
    """A state dict, a file of the last format, and a file that was loaded, changed and saved by hand."""
    path = tmp_path / "model.pt"
    (tmp_path / "small.pt").write_bytes(small)
    changed = torch.load(tmp_path / "small.pt", weights_only=True) | {"class_names": ["dog", "cat"]}
    for content in (model.state_dict(), {"format": "ssd-model-3", "weights": {}}, changed, [1], {}):
        torch.save(content, path)
        assert "not a model file of format ssd-model-4" in refusal(path)


def test_a_pickle_is_not_run_even_with_a_digest(tmp_path: Path) -> None:
    check_it_works(tmp_path)
    path = tmp_path / "model.pt"
    buffer = io.BytesIO()
    torch.save({"format": "ssd-model-4", "weights": Malicious(tmp_path / "was_run")}, buffer)
    path.write_bytes(sealed_zip(buffer.getvalue(), SEAL))
    assert "does not load without pickle" in refusal(path)
    assert not (tmp_path / "was_run").exists()


def test_a_network_that_is_built_otherwise_here_is_told_so(model: SSD, tmp_path: Path) -> None:
    """As by another version of torchvision or timm, which names parameters in another way."""
    weights = {name.replace("bn1", "norm1"): value for name, value in model.state_dict().items()}
    save_model(tmp_path / "model.pt", weights, CONFIG, ["cat", "dog"], asdict(SETTINGS))
    with pytest.raises(
        UserError, match=r"model.pt: its weights do not fit resnet18 as the torchvision"
    ) as caught:
        load_model(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")],
)
def test_too_little_memory_is_no_damage(
    error: Exception, small: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise error

    (tmp_path / "model.pt").write_bytes(small)
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UserError, match=r"model.pt: not enough memory to read it") as caught:
        load_loss_settings(tmp_path / "model.pt")
    assert caught.value.path is None, "to train again does not help"
