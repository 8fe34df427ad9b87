"""Every stage ends a user's mistake with one line and exit code 2, before any work; a lost process with 1."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd.errors import LostProcessError
from ssd.lock import ProcessLock
from stages.only_one import only_one

STAGES = ("download", "preprocess", "train", "evaluate", "export", "report")
RunStage = Callable[..., Any]


@pytest.mark.parametrize("stage", STAGES)
def test_a_bad_param_of_any_section_stops_every_stage(
    stage: str, run_stage: RunStage, tmp_path: Path
) -> None:
    ended = run_stage(stage, **{"export.opset": "banana"})
    assert ended.code == 2
    assert ended.stderr == "params.yaml: export.opset: found 'banana'; allowed: integer\n"
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_missing_folder_of_one_s_own_is_named(run_stage: RunStage) -> None:
    ended = run_stage("download", **{"data.source": "voc_dir"})
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("params.yaml: data.path:")
    assert "data/own" in line


@pytest.mark.parametrize(
    ("stage", "missing", "maker"),
    [
        ("preprocess", "data/raw", "download"),
        ("train", "data/tensors/train.safetensors", "preprocess"),
        ("evaluate", "data/tensors/test.safetensors", "preprocess"),
        ("export", "models/model.pt", "train"),
        ("report", "data/tensors/train.safetensors", "preprocess"),
    ],
)
def test_a_missing_input_is_one_line_with_the_stage_that_makes_it(
    stage: str, missing: str, maker: str, run_stage: RunStage
) -> None:
    ended = run_stage(stage)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert missing in line
    assert f"`dvc repro -f {maker}`" in line


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_does_not_run_beside_itself(stage: str, run_stage: RunStage, tmp_path: Path) -> None:
    """In a project of DVC; another stage may run at the same time. With these params, none has work to do."""
    changes = {"data.source": "voc_dir"}
    lock = ProcessLock(tmp_path / ".dvc/tmp/stages", stage)
    lock.acquire()
    ended = run_stage(stage, **changes)
    assert ended.code == 2
    refused = (
        rf"another process runs {stage} in this folder \({os.getpid()} on \S+\); wait until it ends, .*\n"
    )
    assert re.fullmatch(refused, ended.stderr)
    with only_one("report" if stage == "train" else "train"):
        lock.release()
    with only_one(stage):
        assert "in this folder" in run_stage(stage, **changes).stderr
    assert "in this folder" not in run_stage(stage, **changes).stderr


def test_a_lock_that_cannot_be_written_is_one_line(run_stage: RunStage, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/tmp").touch()
    ended = run_stage("evaluate")
    assert ended.code == 2
    assert ended.stderr == ".dvc/tmp/stages: not writable: Not a directory\n"


def test_the_loss_of_another_process_is_one_line(
    monkeypatch: pytest.MonkeyPatch, run_stage: RunStage
) -> None:
    def lose(*_: object) -> None:
        raise LostProcessError("process 0 of 2, epoch 3, validating: no answer")

    monkeypatch.setattr("stages.train.train_model", lose)
    ended = run_stage("train")
    assert ended.code == 1
    assert ended.stderr == "process 0 of 2, epoch 3, validating: no answer\n"
