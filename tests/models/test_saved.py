"""The model file: enough to rebuild the network, and nothing that runs code."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from ssd.errors import UserError
from ssd.files import sha256
from ssd.loss import LossSettings
from ssd.models.config import paper_config
from ssd.models.saved import load_loss_settings, load_model, save_model
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


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign"])
def test_a_bad_file_is_one_clear_line(damage: str, model: SSD, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    if damage == "truncated":
        save_model(path, model.state_dict(), CONFIG, ["cat", "dog"], asdict(SETTINGS))
        path.write_bytes(path.read_bytes()[:10_000])
    if damage == "foreign":
        torch.save(model.state_dict(), path)
    for load in (load_model, load_loss_settings):
        with pytest.raises(UserError, match=r"model.pt: ") as caught:
            load(path)
        assert "\n" not in str(caught.value)
        assert caught.value.path == path
