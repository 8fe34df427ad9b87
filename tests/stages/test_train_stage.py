"""What the train stage gives to the training: its settings reach the split that they are for."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from flagged_objects import Flagged, write_flagged

from ssd.errors import UserError
from ssd.loading.tensor_file import TensorFile
from ssd.params import Params
from ssd.processes.world import World
from ssd.training.checkpoints import Best
from ssd.training.loop import Trainer
from ssd.training.progress import Progress
from stages import train
from stages.train_log import HISTORY, HISTORY_COPY, say_where_it_stopped, write_history


class StartedError(Exception):
    """The training was about to start."""


@pytest.mark.parametrize("train_on_difficult", [False, True])
def test_difficult_objects_are_trained_on_in_the_training_split_alone(
    train_on_difficult: bool,
    make_params: Callable[..., Params],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The boxes of the priors are those that are trained on."""
    for path in (train.TRAIN_FILE, train.VAL_FILE):
        write_flagged(tmp_path / path, [[Flagged(), Flagged(difficult=True)]])
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {}

    def build(model: object, num_classes: int, boxes: torch.Tensor, *others: object) -> None:
        given["boxes"] = boxes

    def start(model: object, train_file: TensorFile, val_file: TensorFile, *others: object) -> None:
        given["ignored"] = [file.objects(0).ignored.tolist() for file in (train_file, val_file)]
        raise StartedError

    monkeypatch.setattr(train, "build_model", build)
    monkeypatch.setattr(train, "Trainer", start)
    changes = {"train.device": "cpu", "train.train_on_difficult": train_on_difficult}
    with pytest.raises(StartedError):
        train.train_model(make_params(**changes), World())
    assert given["ignored"] == [[False, not train_on_difficult], [False, True]]
    assert len(given["boxes"]) == 1 + train_on_difficult


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (
            [[Flagged(difficult=True)], [], [Flagged(difficult=True), Flagged(crowd=True)]],
            r"train\.train_on_difficult: found false, .* no object to learn from: 2 are difficult, 1 crowds",
        ),
        ([[Flagged(difficult=True, crowd=True)], []], "no object to learn from: all 1 objects are crowds"),
        ([[], []], "no object to learn from: there are no objects"),
    ],
    ids=["difficult", "crowds", "none"],
)
def test_without_an_object_to_learn_from_no_training_starts(
    objects: list[list[Flagged]],
    message: str,
    make_params: Callable[..., Params],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_flagged(tmp_path / train.TRAIN_FILE, objects)
    write_flagged(tmp_path / train.VAL_FILE, [[Flagged()]])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        train.train_model(make_params(**{"train.device": "cpu"}), World())
    assert not (tmp_path / "checkpoints").exists()


def test_every_process_validates_the_best_models_in_the_end(
    make_params: Callable[..., Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main one would wait in vain for others that have left."""
    for path in (train.TRAIN_FILE, train.VAL_FILE):
        write_flagged(tmp_path / path, [[Flagged()]])
    monkeypatch.chdir(tmp_path)
    calls: list[str] = []

    class Trained:
        def __init__(self, *given: object) -> None: ...

        def run(self, folder: None, stop: object) -> None:
            calls.append("run")

    monkeypatch.setattr(train, "build_model", lambda *given: None)
    monkeypatch.setattr(train, "Trainer", Trained)
    monkeypatch.setattr(train, "report_fused", lambda trainer: calls.append(f"fuse, {type(trainer)}"))
    train.train_model(make_params(**{"train.device": "cpu"}), World(1, 2, 1))
    assert calls == ["run", f"fuse, {Trained}"]
    assert not Path("models").exists()


@pytest.mark.parametrize(
    ("progress", "where"),
    [
        (Progress(2, 5), "at epoch 3, step 5; the next `dvc repro` resumes from there"),
        (Progress(3, finished=True), "after the last epoch; the next `dvc repro` goes on from there"),
    ],
)
def test_a_stop_is_told_with_its_place(
    progress: Progress, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the last epoch, the best models may still be validated together."""
    say_where_it_stopped(cast(Trainer, SimpleNamespace(progress=progress)))
    assert capsys.readouterr().err == f"stopped {where}\n"


def test_the_history_is_written_a_second_time_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search reads it there while DVC's copy of the workspace, which has the first one, comes and goes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(HISTORY_COPY, raising=False)
    write_history([])
    monkeypatch.setenv(HISTORY_COPY, str(tmp_path / "outside/trial.tsv"))
    write_history([])
    assert (tmp_path / "outside/trial.tsv").read_bytes() == HISTORY.read_bytes()
    assert len(list(tmp_path.rglob("*.tsv"))) == 2


def test_the_epochs_of_the_best_weights_are_listed() -> None:
    best = (Best(7, 0.51234567, "best-0007.pt", ""), Best(2, None, "best-0002.pt", ""))
    assert train.epochs_table(best) == "rank\tepoch\tscore\n1\t7\t0.512346\n2\t2\t\n"
