"""Training: it learns, it is repeatable, it keeps the best, and it stops on nonsense."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssd.data.augment import Geometry, Photometry
from ssd.data.tensors import TensorFile, write_tensor_file
from ssd.errors import UserError
from ssd.hardware import choose_hardware
from ssd.models.ssd import SSD, SSDConfig
from ssd.params import Params
from ssd.training.history import history_tsv
from ssd.training.loop import Epoch, Trainer, TrainResult
from ssd.training.optimizer import build_optimizer

MakeParams = Callable[..., Params]
SMALL = {"train.batch_size": 4, "train.workers": 0, "train.warmup_steps": 0, "train.precision": "fp32"}


def build() -> SSD:
    torch.manual_seed(0)
    return SSD(SSDConfig("resnet18", 64, 9, 0.1, 0.2, 1.05))


def trainer(
    params: Params, file: TensorFile, val: TensorFile | None = None, model: SSD | None = None
) -> Trainer:
    geometry, photometry = Geometry(0.5, 0.1, 2.0, 0.3), Photometry(0.5, 0.1, 0.3, 0.3, 0.05)
    hardware = choose_hardware("cpu", params.train.precision)
    return Trainer(
        model or build(), file, file if val is None else val, params.train, geometry, photometry, hardware
    )


def run(params: Params, file: TensorFile, val: TensorFile | None = None) -> TrainResult:
    return trainer(params, file, val).run(on_epoch=lambda epoch: None)


def empty_file(folder: Path) -> TensorFile:
    write_tensor_file(folder / "val.safetensors", [], ["x"] * 8)
    return TensorFile(folder / "val.safetensors")


def test_the_loss_falls(make_params: MakeParams, shapes_file: TensorFile) -> None:
    result = run(make_params(**SMALL, **{"train.epochs": 6, "train.val_every": 3}), shapes_file)
    losses = [epoch.train_loss for epoch in result.history]
    assert losses[-1] < 0.8 * losses[0]
    assert [epoch.val_map50 is not None for epoch in result.history] == [False, False, True] * 2
    last = result.history[-1]
    assert last.train_loss == pytest.approx(last.train_loc + last.train_conf, rel=1e-4)
    assert last.val_loss == pytest.approx(last.val_loc + last.val_conf, rel=1e-4)


def test_the_same_seed_gives_the_same_bits_with_any_number_of_workers(
    make_params: MakeParams, shapes_file: TensorFile
) -> None:
    changes = {**SMALL, "train.epochs": 2, "train.val_every": 1}
    results = [run(make_params(**{**changes, "train.workers": workers}), shapes_file) for workers in (0, 2)]
    assert all(torch.equal(a, b) for a, b in zip(*(r.weights.values() for r in results), strict=True))
    assert [e.train_loss for e in results[0].history] == [e.train_loss for e in results[1].history]
    other = run(make_params(**{**changes, "train.seed": 1}), shapes_file)
    assert other.history[0].train_loss != results[0].history[0].train_loss


def test_the_best_weights_are_those_of_the_best_validation(
    make_params: MakeParams, shapes_file: TensorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.5, 0.5, 0.3])
    monkeypatch.setattr("ssd.training.loop.mean_ap", lambda *_: next(scores))
    states = []
    running = trainer(make_params(**SMALL, **{"train.epochs": 4, "train.val_every": 1}), shapes_file)
    weight = running.model.conf_heads[0].weight
    result = running.run(on_epoch=lambda epoch: states.append(weight.detach().clone()))
    assert (result.best_epoch, result.best_map50) == (2, 0.5)
    assert torch.equal(result.weights["conf_heads.0.weight"], states[1])


def test_without_a_val_split_the_last_epoch_is_kept(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    result = run(make_params(**SMALL, **{"train.epochs": 2}), shapes_file, empty_file(tmp_path))
    assert result.best_epoch == 2
    assert result.best_map50 is None
    assert result.history[0].val_loss is None


def test_with_nothing_to_find_in_val_the_last_epoch_is_kept(
    make_params: MakeParams, shapes_file: TensorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd.training.loop.mean_ap", lambda *_: None)
    result = run(make_params(**SMALL, **{"train.epochs": 2, "train.val_every": 1}), shapes_file)
    assert (result.best_epoch, result.best_map50) == (2, None)


def test_settings_that_are_not_used_are_warned_of(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"train.schedule": "plateau", "train.warmup_steps": 1000, "train.epochs": 1}
    trainer(make_params(**{**SMALL, **changes}), shapes_file, empty_file(tmp_path))
    assert "plateau never lowers the learning rate" in caplog.text
    assert "train.lr is never reached" in caplog.text


def test_a_loss_that_is_not_finite_stops_and_names_the_images(
    make_params: MakeParams, shapes_file: TensorFile
) -> None:
    model = build()
    torch.nn.init.constant_(model.loc_heads[0].bias, float("nan"))
    running = trainer(make_params(**SMALL, **{"train.epochs": 1}), shapes_file, model=model)
    with pytest.raises(UserError, match=r"loss is nan on the batch of images (scene\d+, ){3}scene\d+;"):
        running.run(on_epoch=lambda epoch: None)


def test_one_image_is_too_few(make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2 are needed"):
        trainer(make_params(**SMALL), empty_file(tmp_path))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_norms_and_biases_have_no_weight_decay(make_params: MakeParams, optimizer: str) -> None:
    model = build()
    built = build_optimizer(
        model, make_params(**{"train.optimizer": optimizer, "train.weight_decay": 0.3}).train
    )
    decay = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        plain = name.endswith("bias") or "bn" in name or parameter.ndim == 1
        assert decay[id(parameter)] == (0.0 if plain else 0.3), name


def test_plateau_lowers_the_learning_rate(
    make_params: MakeParams, shapes_file: TensorFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd.training.loop.mean_ap", lambda *_: 0.1)
    changes = {"train.epochs": 4, "train.val_every": 1, "train.schedule": "plateau", "train.patience": 1}
    result = run(make_params(**SMALL, **changes, **{"train.lr": 0.001, "train.gamma": 0.1}), shapes_file)
    assert [epoch.lr for epoch in result.history] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_gradients_are_clipped(make_params: MakeParams, shapes_file: TensorFile) -> None:
    """Plain SGD moves by lr times the clipped gradient, so no step is longer than lr * clip_norm."""
    changes = {"train.optimizer": "sgd", "train.momentum": 0.0, "train.weight_decay": 0.0, "train.lr": 1.0}
    params = make_params(**SMALL, **changes, **{"train.clip_norm": 0.01, "train.schedule": "plateau"})
    running = trainer(params, shapes_file)
    before = [p.detach().clone() for p in running.model.parameters()]
    running._step(next(iter(running.loader)), epoch=0, index=0)
    moved = (
        torch.stack([(p - q).norm() for p, q in zip(running.model.parameters(), before, strict=True)])
        .norm()
        .item()
    )
    assert moved == pytest.approx(0.01, rel=1e-2)


def test_the_history_is_a_table() -> None:
    row = Epoch(0, 0.001, 3.0, 1.0, 2.0, None, None, None, None, 50.0, 0.01, 12.5)
    header, line = history_tsv([row]).splitlines()
    assert header.split("\t")[:3] == ["epoch", "lr", "train_loss"]
    assert line.split("\t") == ["0", "0.001", "3", "1", "2", "", "", "", "", "50", "0.01", "12.5"]


def test_cuda_without_a_gpu_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="params.yaml: train.device: found 'cuda'"):
        choose_hardware("cuda", "auto")
