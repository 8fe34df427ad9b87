"""Two processes train like one: the same gradients, losses, scores and checkpoints."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import SMALL, empty_file, run, trainer

from ssd.loading.tensor_file import TensorFile
from ssd.params import Params

MakeParams = Callable[..., Params]
SCRIPT = Path(__file__).parents[1] / "helpers/train_together.py"
LIMIT = 150  # seconds

# Without anything that looks at the rest of the batch, two processes do the very arithmetic of one.
EXACT = {
    **SMALL,
    "train.optimizer": "sgd",
    "train.lr": 0.01,
    "train.freeze_bn": True,
    "train.checkpoint_minutes": 1e-9,
}

pytestmark = pytest.mark.slow


def start(folder: Path, data: TensorFile, num_processes: int = 2, restarts: int = 0) -> subprocess.Popen:
    """`train_together.py` through the project's launcher, by folder/../params.yaml."""
    command = [sys.executable, str(SCRIPT), str(num_processes), str(restarts), str(folder), str(data.path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        output, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, output, errors


def together(folder: Path, data: TensorFile) -> dict[str, Any]:
    code, output, errors = finish(start(folder, data))
    assert code == 0, output + errors
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
        for name in ("train_loss", "train_loc", "train_conf", "val_loss", "val_map50", "val_map", "val_f1"):
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
    changes = {"train.ema": 0.9, "train.accumulate": 2, "train.multi_scale": 0.5, "train.workers": 1}
    make_params(**{**SMALL, **changes, "train.batch_size": 8, "train.epochs": 4, "train.keep_best": 2})
    whole = together(tmp_path / "whole", shapes_file)

    process = start(tmp_path / "cut", shapes_file)
    for rank in (0, 1):
        wait_for(tmp_path / "cut" / f"pid{rank}")
    process.send_signal(signal.SIGTERM)
    code, _, errors = finish(process)
    assert code == 130, errors
    (saved,) = (tmp_path / "cut").glob("step-*.pt")
    for path in (tmp_path / "cut").glob("pid*"):
        path.unlink()

    process = start(tmp_path / "cut", shapes_file, restarts=1)
    kill_rank(tmp_path / "cut", rank=1, after=saved.name)
    code, output, errors = finish(process)
    assert code == 0, output + errors
    assert "process 1 of 2 was killed (SIGKILL)" in errors
    assert "restarting from the last checkpoint (1 of 1)" in errors
    cut = json.loads((tmp_path / "cut.json").read_text())
    assert cut["digest"] == whole["digest"]
    assert rows(cut) == rows(whole)


def kill_rank(folder: Path, rank: int, after: str) -> None:
    """SIGKILL to a process of the job, once there is a checkpoint later than `after`."""
    pid = int(wait_for(folder / f"pid{rank}").read_text())
    deadline = time.monotonic() + LIMIT
    while not any(path.name > after for path in folder.glob("step-*.pt")):
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


def wait_for(path: Path) -> Path:
    """A file that has content."""
    deadline = time.monotonic() + LIMIT
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)
    return path


def test_too_few_images_for_two_is_one_clear_line(
    make_params: MakeParams, shapes_file: TensorFile, tmp_path: Path
) -> None:
    make_params(**SMALL)
    code, _, errors = finish(start(tmp_path / "run", empty_file(tmp_path)))
    assert code == 2
    assert errors.strip().splitlines()[-1].endswith("0 image(s) to train on; at least 4 are needed")
