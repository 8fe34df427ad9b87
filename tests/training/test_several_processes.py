"""Two processes train like one: the same gradients, losses, scores and checkpoints."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from small_training import SMALL, run, trainer
from waiting import finish, start, wait_until

from ssd.loading.tensor_file import TensorFile
from ssd.params import Params

MakeParams = Callable[..., Params]
SCRIPT = Path(__file__).parents[1] / "helpers/train_together.py"

# Without anything that looks at the rest of the batch, two processes do the very arithmetic of one.
EXACT = {
    **SMALL,
    "train.optimizer": "sgd",
    "train.lr": 0.01,
    "train.freeze_bn": True,
    "train.checkpoint_minutes": 1e-9,
}

SCORES = ("val_map50", "val_map75", "val_map", "val_f1")

pytestmark = pytest.mark.slow


def start_training(
    folder: Path, data: TensorFile, num_processes: int = 2, restarts: int = 0
) -> subprocess.Popen[str]:
    """`train_together.py` through the project's launcher, by folder/../params.yaml."""
    command = [sys.executable, str(SCRIPT), str(num_processes), str(restarts), str(folder), str(data.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return start(command, environment)


def together(folder: Path, data: TensorFile) -> dict[str, Any]:
    ended = finish(start_training(folder, data))
    assert ended.code == 0, ended
    report: dict[str, Any] = json.loads((folder.parent / f"{folder.name}.json").read_text())
    return report


def rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    clock = {"images_per_s", "data_wait", "seconds"}
    return [{key: value for key, value in row.items() if key not in clock} for row in report["history"]]


def test_two_processes_train_like_one(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    """Sixteen images in batches of 11, in shares of 6 and 5, and a last one of 5, in shares of 3 and 2."""
    params = make_params(**{**EXACT, "train.epochs": 2, "train.batch_size": 11})
    report = together(tmp_path / "two", shapes_file)
    assert report["images"] == [[6, 5], [3, 2]] * 2
    single = trainer(params, shapes_file, colours=0.0)
    freeze_all_norms(single)
    whole = run(single, tmp_path / "one")
    for row, expected in zip(report["history"], whole.history, strict=True):
        for name in ("train_loss", "train_loc", "train_conf", "val_loss", *SCORES):
            assert row[name] == pytest.approx(getattr(expected, name), rel=1e-3, abs=1e-4), name
    weights = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, value in whole.weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


def freeze_all_norms(running: Any) -> None:
    model = running.step.model
    running.step.frozen_norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_stopped_and_robbed_of_a_process_they_end_with_the_same_bits(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    """SIGTERM saves and stops all; then a SIGKILL to one process costs nothing but time, with restarts on."""
    changes = {"train.ema": 0.9, "train.accumulate": 2, "train.multi_scale": 0.5, "train.epochs": 3}
    changes = {**SMALL, **changes, "train.batch_size": 8, "train.keep_best": 2}
    make_params(**changes)
    whole = together(tmp_path / "whole", shapes_file)

    cut = tmp_path / "cut"
    process = start_training(cut, shapes_file)
    wait_until(lambda: has_text(cut / "pid0") and has_text(cut / "pid1"), process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.code == 130, ended
    (saved,) = cut.glob("step-*.pt")
    for path in cut.glob("pid*"):
        path.unlink()

    make_params(**{**changes, "train.workers": 1})
    process = start_training(cut, shapes_file, restarts=1)
    wait_until(lambda: has_text(cut / "pid1") and max(cut.glob("step-*.pt")) > saved, process)
    killed = psutil.Process(int((cut / "pid1").read_text()))
    workers = killed.children(recursive=True)
    killed.kill()
    ended = finish(process)
    assert ended.code == 0, ended
    assert "process 1 of 2 was killed (SIGKILL)" in ended.stderr
    assert "restarting from the last checkpoint (1 of 1)" in ended.stderr
    assert workers
    wait_until(lambda: not any(map(is_alive, workers)))
    report = json.loads((tmp_path / "cut.json").read_text())
    assert report["digest"] == whole["digest"]
    assert rows(report) == rows(whole)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def has_text(path: Path) -> bool:
    return path.is_file() and path.read_text() != ""
