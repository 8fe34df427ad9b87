"""Training: it learns, it is repeatable, it keeps the best, and it stops on nonsense."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_training import SMALL, Recorder, build, empty_file, run, same_weights, trainer

from ssd.errors import LostProcessError, UserError
from ssd.evaluation import SplitResult
from ssd.loading.batches import training_batches
from ssd.loading.dataset import Batch
from ssd.loading.tensor_file import TensorFile
from ssd.params import Params
from ssd.structures import Detections
from ssd.training.history import Epoch, history_tsv
from ssd.training.selection import Scores
from ssd.training.step import TrainStep

MakeParams = Callable[..., Params]


def test_the_loss_falls(make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path) -> None:
    params = make_params(**{**SMALL, "train.epochs": 4, "train.val_every": 2, "train.optimizer": "adamw"})
    result = run(trainer(params, shapes_file, model=build()), tmp_path / "run")
    losses = [epoch.train_loss for epoch in result.history]
    assert losses[-1] < 0.9 * losses[0]
    assert [epoch.val_map50 is not None for epoch in result.history] == [False, True] * 2
    last = result.history[-1]
    assert last.train_loss == pytest.approx(last.train_loc + last.train_conf, rel=1e-4)
    assert last.val_loss == pytest.approx(last.val_loc + last.val_conf, rel=1e-4)


def test_the_same_seed_gives_the_same_bits_with_any_number_of_workers_and_a_cache(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    results = []
    for workers, cache, seed in ((0, "none", 0), (2, "none", 0), (2, "ram", 0), (0, "none", 1)):
        changes = {"train.epochs": 1, "train.workers": workers, "train.cache": cache, "train.seed": seed}
        params = make_params(**{**SMALL, **changes})
        running = trainer(params, shapes_file, mosaic=0.5, mixup=0.5)
        results.append(run(running, tmp_path / f"{workers}{cache}{seed}"))
    first, *same, other = results
    assert all(same_weights(first, result) for result in same)
    assert all(
        [e.train_loss for e in result.history] == [e.train_loss for e in first.history] for result in same
    )
    assert other.history[0].train_loss != first.history[0].train_loss


def test_the_best_weights_are_those_of_the_best_validation(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.2, 0.5, 0.5, 0.3])
    monkeypatch.setattr("ssd.training.loop.validation_scores", lambda *_: Scores(map50=next(values)))
    states = []
    running = trainer(make_params(**{**SMALL, "train.epochs": 4}), shapes_file)
    weight = running.step.model.heads.conf[0].weight
    recorder = Recorder(on_epoch=lambda: states.append(weight.detach().clone()))
    result = run(running, tmp_path / "run", recorder)
    assert (result.best_epoch, result.best_score) == (2, 0.5)
    assert torch.equal(result.weights["heads.conf.0.weight"], states[1])


def test_as_many_of_the_best_are_kept_as_asked_for(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.2, 0.5, 0.1, 0.4, 0.3])
    monkeypatch.setattr("ssd.training.loop.validation_scores", lambda *_: Scores(f1=next(values)))
    changes = {"train.epochs": 5, "train.keep_best": 3, "train.select_by": "f1"}
    result = run(trainer(make_params(**{**SMALL, **changes}), shapes_file), tmp_path / "run")
    files = sorted(path.name for path in (tmp_path / "run").glob("*.pt"))
    assert (result.best_epoch, len(result.others)) == (2, 2)
    assert files == ["best-0002.pt", "best-0004.pt", "best-0005.pt", "step-00000020.pt"]


def test_without_a_val_split_the_last_epoch_is_kept(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    params = make_params(**{**SMALL, "train.epochs": 2})
    result = run(trainer(params, shapes_file, empty_file(tmp_path)), tmp_path / "run")
    assert (result.best_epoch, result.best_score) == (2, None)
    assert result.history[0].val_loss is None


def with_losses(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Every step of epoch i costs values[i], is skipped where that is NaN, and computes nothing."""

    def step(self: TrainStep, batch: Batch, epoch: int, index: int, lr: float) -> torch.Tensor:
        return torch.tensor([values[epoch], 0.0, values[epoch], float(math.isnan(values[epoch]))])

    monkeypatch.setattr(TrainStep, "__call__", step)


@pytest.mark.parametrize("with_val", [False, True])
def test_the_epoch_of_the_lowest_training_loss_is_kept(
    make_params: MakeParams,
    shapes_file: TensorFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    with_val: bool,
) -> None:
    """Validated or not; an epoch whose steps were all skipped has no loss."""
    with_losses(monkeypatch, 3.0, 1.5, math.nan, 1.0, 2.0)
    changes = {"train.select_by": "train_loss", "train.epochs": 5, "train.keep_best": 2, "train.val_every": 2}
    val = shapes_file if with_val else empty_file(tmp_path)
    result = run(trainer(make_params(**{**SMALL, **changes}), shapes_file, val), tmp_path / "run")
    assert (result.best_epoch, result.best_score) == (4, 1.0)
    files = sorted(path.name for path in (tmp_path / "run").glob("best*.pt"))
    assert files == ["best-0002.pt", "best-0004.pt"]


def test_the_training_loss_lowers_the_learning_rate_and_stops_early_without_a_val_split(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_losses(monkeypatch, 3.0, 1.0, 1.0, 2.0, 1.0, 0.5)
    changes = {
        "train.select_by": "train_loss",
        "train.epochs": 6,
        "train.schedule": "plateau",
        "train.patience": 1,
        "train.early_stop": 3,
        "train.lr": 0.01,
    }
    params = make_params(**{**SMALL, **changes})
    result = run(trainer(params, shapes_file, empty_file(tmp_path)), tmp_path / "run")
    assert [epoch.lr for epoch in result.history] == pytest.approx([0.01] * 4 + [0.001])
    assert result.best_epoch == 2


def test_the_lowest_validation_loss_is_the_best(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([2.0, 0.5, 0.7])
    found = [Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))] * 16
    monkeypatch.setattr(
        "ssd.training.loop.run_split", lambda *_, **__: SplitResult(found, next(values), 0.0, 0.0, 0.0)
    )
    changes = {"train.epochs": 3, "train.select_by": "val_loss"}
    result = run(trainer(make_params(**{**SMALL, **changes}), shapes_file), tmp_path / "run")
    assert (result.best_epoch, result.best_score) == (2, 0.5)


@pytest.mark.parametrize(("val_batch_size", "expected"), [(0, 2 * 4), (3, 3)])
def test_validation_has_its_own_batch_size(
    make_params: MakeParams, shapes_file: TensorFile, val_batch_size: int, expected: int
) -> None:
    running = trainer(make_params(**{**SMALL, "train.val_batch_size": val_batch_size}), shapes_file)
    assert max(len(batch.indices) for batch in running.val_loader) == expected


def test_with_nothing_to_find_in_val_the_last_epoch_is_kept(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd.training.loop.validation_scores", lambda *_: Scores())
    result = run(trainer(make_params(**{**SMALL, "train.epochs": 2}), shapes_file), tmp_path / "run")
    assert (result.best_epoch, result.best_score) == (2, None)


def test_validations_that_cannot_score_do_not_stop_a_training(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A val split may hold crowds, difficult objects or none."""
    monkeypatch.setattr(TensorFile, "images_with_objects", lambda _: [])
    monkeypatch.setattr("ssd.training.loop.validation_scores", lambda *_: Scores())
    params = make_params(**{**SMALL, "train.epochs": 3, "train.early_stop": 1})
    assert len(run(trainer(params, shapes_file), tmp_path / "run").history) == 3


def test_training_stops_early_when_validation_gains_nothing(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    monkeypatch.setattr("ssd.training.loop.validation_scores", lambda *_: Scores(map50=next(values)))
    params = make_params(**{**SMALL, "train.epochs": 5, "train.early_stop": 2})
    result = run(trainer(params, shapes_file), tmp_path / "run")
    assert [epoch.epoch for epoch in result.history] == [1, 2, 3, 4]
    assert result.best_epoch == 2


def test_one_image_is_too_few(make_params: MakeParams, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2 are needed"):
        trainer(make_params(**SMALL), empty_file(tmp_path))
    with pytest.raises(UserError, match="0 image.s. to train on; at least 4 are needed"):
        training_batches(empty_file(tmp_path), make_params(**SMALL).train, 64, rank=0, world_size=2)


@pytest.mark.parametrize(
    ("function", "place"),
    [
        ("ssd.training.step.TrainStep.__call__", "epoch 1, step 1, computing"),
        ("ssd.training.loop.run_split", "epoch 1, validating"),
        ("ssd.training.loop.validation_scores", "epoch 1, scoring and saving"),
    ],
)
def test_a_lost_exchange_names_the_place_in_the_training(
    function: str,
    place: str,
    make_params: MakeParams,
    shapes_file: TensorFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose(*_: object, **__: object) -> None:
        raise RuntimeError(
            "[/pytorch/third_party/gloo/gloo/unbound_buffer.cc:81] Timed out waiting 1800000ms"
        )

    monkeypatch.setattr(function, lose)
    with pytest.raises(LostProcessError, match=f"^process 0 of 1, {place}: no answer from another process"):
        run(trainer(make_params(**SMALL), shapes_file), tmp_path / "run")


def test_plateau_lowers_the_learning_rate(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd.training.loop.validation_scores", lambda *_: Scores(map50=0.1))
    changes = {"train.epochs": 4, "train.schedule": "plateau", "train.patience": 0}
    params = make_params(**SMALL, **changes, **{"train.lr": 0.001, "train.gamma": 0.1})
    result = run(trainer(params, shapes_file), tmp_path / "run")
    assert [epoch.lr for epoch in result.history] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_no_other_schedule_is_lowered_on_a_plateau(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd.training.loop.validation_scores", lambda *_: Scores(map50=0.1))
    changes = {"train.epochs": 4, "train.schedule": "constant", "train.patience": 1}
    result = run(trainer(make_params(**SMALL, **changes), shapes_file), tmp_path / "run")
    assert [epoch.lr for epoch in result.history] == [0.002] * 4


def test_the_history_is_a_table() -> None:
    row = Epoch(0, 0.001, 3.0, 1.0, 2.0, None, None, None, None, None, None, None, 0, 50.0, 0.01, 12.5)
    header, line = history_tsv([row]).splitlines()
    assert header.split("\t")[:3] == ["epoch", "lr", "train_loss"]
    assert line.split("\t") == ["0", "0.001", "3", "1", "2", *[""] * 7, "0", "50", "0.01", "12.5"]
