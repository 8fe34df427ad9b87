"""Two processes train like one: the same gradients, losses, scores and checkpoints."""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from default_params import default_params, default_text
from small_training import SMALL, run, trainer
from waiting import Ended, finish, start, wait_until

from ssd.loading.tensor_file import TensorFile
from ssd.processes.launch import launch
from ssd.training.checkpoints import CheckpointFolder
from stages.fused_best import fused_scores

SCRIPT = str(Path(__file__).parents[1] / "helpers/train_together.py")

EVERYTHING = {
    **SMALL,
    "train.ema": 0.9,
    "train.accumulate": 2,
    "train.multi_scale": 0.5,
    "train.epochs": 4,
    "train.batch_size": 8,
    "train.keep_best": 2,
}

# Without anything that looks at the rest of the batch, two processes do the very arithmetic of one.
EXACT = {
    **SMALL,
    "train.epochs": 2,
    "train.batch_size": 11,
    "train.lr": 0.01,
    "train.freeze_bn": True,
    "train.checkpoint_minutes": 1e-9,
}

SCORES = ("val_map50", "val_map75", "val_map", "val_f1")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def stopped(folder: Path, shapes_file: TensorFile) -> Ended:
    """The training "cut": it has lost a process, was restarted, and then stopped by SIGTERM."""
    cut = folder / "cut"
    write_params(cut, {**EVERYTHING, "train.workers": 1})
    command = [sys.executable, SCRIPT, "2", "1", str(shapes_file.path), str(cut)]
    process = start(command, {**os.environ, "OMP_NUM_THREADS": "1"})
    wait_until(lambda: has_text(cut / "pid1") and any(cut.glob("step-*.pt")), process)
    killed = psutil.Process(int((cut / "pid1").read_text()))
    workers, saved = killed.children(recursive=True), max(cut.glob("step-*.pt"))
    killed.kill()
    wait_until(lambda: (cut / "pid1").read_text() not in ("", str(killed.pid)), process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert workers
    wait_until(lambda: not any(map(is_alive, workers)))
    assert max(cut.glob("step-*.pt")) > saved
    return ended


@pytest.fixture(scope="module")
def reports(folder: Path, stopped: Ended, shapes_file: TensorFile) -> dict[str, Any]:
    """Of three trainings in the same processes: "cut" goes on, the others are not disturbed."""
    names = ("cut", "whole", "exact")
    for name, changes in zip(names, (EVERYTHING, EVERYTHING, EXACT), strict=True):
        write_params(folder / name, changes)
    folders = [str(folder / name) for name in names]
    assert launch([SCRIPT, "2", "0", str(shapes_file.path), *folders], 2, restarts=0) == 0
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}


def write_params(folder: Path, changes: dict[str, Any]) -> None:
    folder.with_suffix(".yaml").write_text(default_text(**changes))


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    clock = {"images_per_s", "data_wait", "seconds"}
    return [{key: value for key, value in row.items() if key not in clock} for row in report["history"]]


def test_two_processes_train_like_one(
    reports: dict[str, Any], folder: Path, shapes_file: TensorFile, tmp_path: Path
) -> None:
    """Sixteen images in batches of 11, in shares of 6 and 5, and a last one of 5, in shares of 3 and 2."""
    report = reports["exact"]
    assert report["images"] == [[6, 5], [3, 2]] * 2
    single = trainer(default_params(**EXACT), shapes_file, colours=0.0)
    freeze_all_norms(single)
    whole = run(single, tmp_path / "one")
    for row, expected in zip(report["history"], whole.history, strict=True):
        for name in ("train_loss", "train_loc", "train_conf", "val_loss", *SCORES):
            assert row[name] == pytest.approx(getattr(expected, name), rel=1e-3, abs=1e-4), name
    weights = torch.load(folder / "exact.pt", weights_only=True)
    for name, value in whole.weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def freeze_all_norms(running: Any) -> None:
    model = running.step.model
    running.step.frozen_norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_robbed_of_a_process_and_stopped_they_end_with_the_same_bits(
    stopped: Ended, reports: dict[str, Any]
) -> None:
    """A SIGKILL to one process costs nothing but time, with restarts on; then SIGTERM saves and stops all."""
    assert stopped.code == 130, stopped
    assert "process 1 of 2 was killed (SIGKILL)" in stopped.stderr
    assert "restarting from the last checkpoint (1 of 1)" in stopped.stderr
    assert reports["cut"]["digest"] == reports["whole"]["digest"]
    assert rows(reports["cut"]) == rows(reports["whole"])


def test_they_validate_the_best_models_together_as_one_process_does(
    reports: dict[str, Any], folder: Path, shapes_file: TensorFile
) -> None:
    with CheckpointFolder(folder / "whole", EVERYTHING["train.keep_best"]) as kept:
        assert kept.load() is not None
        weights = [kept.read_weights(item) for item in kept.best]
    expected = fused_scores(trainer(default_params(**EVERYTHING), shapes_file), weights)
    assert len(weights) == 2
    assert expected.map50 is not None and expected.map50 > 0
    assert reports["whole"]["fused"] == pytest.approx(asdict(expected), rel=1e-3, abs=1e-6)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def has_text(path: Path) -> bool:
    return path.is_file() and path.read_text() != ""
