"""A model.pt as initial weights: the network as it is, the class heads by name, and clear refusals."""

import logging
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from ssd.errors import UserError
from ssd.loss import LossSettings
from ssd.models import fine_tune
from ssd.models.config import HeadKind, Neck, SSDConfig, paper_config
from ssd.models.fine_tune import check_fits
from ssd.models.saved import save_model
from ssd.models.ssd import SSD
from ssd.models.weights import load_weights

KNOWN = ["cat", "dog", "bird"]


def config(num_classes: int = len(KNOWN), **changes: object) -> SSDConfig:
    return replace(paper_config("resnet18", 64, num_classes + 1), **changes)


def network(found: SSDConfig, seed: int) -> SSD:
    torch.manual_seed(seed)
    return SSD(found)


@pytest.fixture(scope="module")
def trained() -> SSD:
    return network(config(), 0)


@pytest.fixture(scope="module")
def file(trained: SSD, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "base.pt"
    save_model(path, trained.state_dict(), trained.config, KNOWN, asdict(LossSettings()))
    return path


def conf(model: SSD, level: int = 0) -> torch.Tensor:
    """Confidence filters and biases, [A, C, in * k * k + 1]."""
    head = model.heads.conf[level]
    weight = head.weight.view(-1, model.num_classes, head.weight[0].numel())
    return torch.cat([weight, head.bias.view(-1, model.num_classes, 1)], dim=2)


def test_the_same_classes_give_the_same_network(trained: SSD, file: Path) -> None:
    model = network(config(), 1)
    load_weights(model, str(file), KNOWN)
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in model.state_dict().items())


def test_classes_keep_their_filters_by_name_wherever_they_are(
    trained: SSD, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = network(config(4), 1)
    random = conf(model).clone()
    with caplog.at_level(logging.INFO, "ssd"):
        load_weights(model, str(file), ["bird", "fish", "cat", "dog"])
    for level in range(len(model.config.levels)):
        own, given = conf(model, level), conf(trained, level)
        assert torch.equal(own[:, [0, 1, 3, 4]], given[:, [0, 3, 1, 2]])
    assert torch.equal(conf(model)[:, 2, :-1], random[:, 2, :-1]), "the filters of a new class stay random"
    assert torch.allclose(conf(model)[:, 2, -1], conf(trained)[:, 1:, -1].mean(dim=1))
    assert torch.equal(model.backbone.conv1.weight, trained.backbone.conv1.weight)
    assert torch.equal(model.heads.loc[0].weight, trained.heads.loc[0].weight)
    assert "class heads kept for bird, cat, dog" in caplog.text
    assert "randomly initialised for fish" in caplog.text


def test_another_input_size_keeps_the_levels_that_both_have(
    trained: SSD, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = network(paper_config("resnet18", 300, 4), 1)
    load_weights(model, str(file), KNOWN)
    assert torch.equal(model.backbone.layer4[1].conv2.weight, trained.backbone.layer4[1].conv2.weight)
    assert "trained with other priors" in caplog.text
    assert "randomly initialised" in caplog.text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            paper_config("resnet34", 64, 4),
            "base.pt was trained with other settings; set model.backbone: resnet18, or",
        ),
        (paper_config("resnet18", 64, 4, neck="fpn"), "model.neck: none"),
        (paper_config("resnet18", 64, 4, heads="conv1x1"), "model.heads: conv3x3"),
    ],
)
def test_another_network_is_refused_with_the_settings_of_the_file(
    file: Path, other: SSDConfig, message: str
) -> None:
    with torch.device("meta"):
        model = SSD(other)
    with pytest.raises(UserError, match=message):
        load_weights(model, str(file), KNOWN)


@pytest.mark.parametrize(
    ("heads", "neck", "fits"),
    [
        ("conv3x3", "none", True),
        ("ssdlite", "none", True),
        ("conv1x1", "none", False),
        ("ssdlite", "fpn", False),
    ],
)
def test_the_width_counts_where_layers_have_it(
    monkeypatch: pytest.MonkeyPatch, heads: HeadKind, neck: Neck, fits: bool
) -> None:
    narrow, wide = (
        paper_config("resnet18", 64, 4, heads=heads, neck=neck, width=width) for width in (128, 256)
    )
    with torch.device("meta"):
        shapes = [[value.shape for value in SSD(found).state_dict().values()] for found in (narrow, wide)]
        source = SSD(narrow)
    assert (shapes[0] == shapes[1]) is fits
    monkeypatch.setattr(fine_tune, "load_model", lambda path: (source, KNOWN))
    with nullcontext() if fits else pytest.raises(UserError, match="model.width: 128"):
        check_fits(wide, Path("base.pt"))


def test_a_damaged_model_is_refused(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_weights(network(config(), 1), str(tmp_path / "model.pt"), KNOWN)
