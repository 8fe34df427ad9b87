"""Every stage ends a user's mistake with one line and exit code 2, before any work; a lost process with 1."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd.errors import LostProcessError, UserError
from ssd.lock import ProcessLock
from stages.only_one import only_one

REPOSITORY = Path(__file__).parents[2]

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


COMMANDS = ("check", "check_params", "folds", "recipe")


@pytest.mark.parametrize("name", [*STAGES, *COMMANDS])
def test_help_says_what_a_stage_does_and_runs_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"stages.{name}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: python -m stages.{name} [-h]")
    assert str(module.__doc__).splitlines()[0] in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*STAGES, *COMMANDS])
def test_an_unknown_argument_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"stages.{name}").main(["--epochs=10"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("error: unrecognized arguments: --epochs=10\n")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_is_what_a_stage_is_given(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stages.check_params", "--epochs=10"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    for path in (REPOSITORY / "stages").glob("[!_]*.py"):
        if "__main__" in path.read_text():
            assert path.read_text().endswith("    main(sys.argv[1:])\n"), path.name


@pytest.fixture
def lost_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a stage says if it stops for want of its input, run by DVC after this dvc.lock."""

    def say(run_stage: RunStage, lock: str, **environment: str) -> str:
        (tmp_path / "dvc.lock").write_text(lock)
        monkeypatch.setattr("stages.command.load_params", fail)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return str(run_stage("train").stderr)

    def fail() -> None:
        raise UserError("train.lr: wrong")

    return say


LOCK = "schema: '2.0'\nstages:\n  train:\n    cmd: python -m stages.train\n"


def test_run_by_dvc_it_says_how_to_get_back_what_dvc_removed(
    run_stage: RunStage, lost_output: Callable[..., str], tmp_path: Path
) -> None:
    said = lost_output(run_stage, LOCK, DVC_STAGE="train", DVC_ROOT=str(tmp_path))
    assert said == "train.lr: wrong; DVC has removed what train wrote before, `dvc checkout` brings it back\n"


@pytest.mark.parametrize(
    ("lock", "environment"),
    [
        (LOCK, {}),
        (LOCK, {"DVC_STAGE": "train", "DVC_ROOT": "/elsewhere"}),
        (LOCK, {"DVC_STAGE": "check_params"}),
        (LOCK.replace("train:", "evaluate:"), {"DVC_STAGE": "train"}),
    ],
    ids=["by hand", "in a temporary folder", "nothing of worth removed", "never run before"],
)
def test_where_nothing_was_lost_it_says_no_more(
    run_stage: RunStage, lost_output: Callable[..., str], lock: str, environment: dict[str, str]
) -> None:
    assert lost_output(run_stage, lock, **environment) == "train.lr: wrong\n"


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
        ("train", "data/tensors/train", "preprocess"),
        ("evaluate", "data/tensors/test", "preprocess"),
        ("export", "models/model.pt", "train"),
        ("report", "data/tensors/train", "preprocess"),
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
