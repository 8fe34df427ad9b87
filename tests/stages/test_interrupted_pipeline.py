"""A training that is stopped and killed, as the stages before it, ends with the bits of a whole one."""

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc_project import TINY, Running, kill, make_project, mlflow_runs, processes, run_python, start_python
from waiting import Ended, finish, wait_until

from ssd.files import sha256
from ssd.training.checkpoints import CheckpointFolder

OUTS = [
    *(f"data/tensors/{split}.safetensors" for split in ("train", "val", "test")),
    *("models/model.pt", "reports/train/priors.json"),
]
REPRO = ("dvc", "repro", "train")


@pytest.mark.slow
def test_killed_in_each_stage_up_to_training_it_ends_with_the_same_bits(
    run_stage: Callable[..., Ended], tmp_path: Path
) -> None:
    """SIGKILL to DVC and the stage as in a power cut; to training SIGTERM first, as from Kubernetes."""
    project = make_project(tmp_path / "killed")
    for written in ("data/raw", "data/tensors"):
        kill_when_it_writes(project, written)

    running = start_until(project, lambda _: steps(project) > 0)
    (training,) = processes(running, "stages.train")
    training.send_signal(signal.SIGTERM)
    output = finish(running).stdout
    assert re.search(r"stopped at epoch \d, step \d; the next `dvc repro` resumes from there", output)
    (stopped,) = mlflow_runs(project)
    assert stopped.info.status == "KILLED"

    before = steps(project)
    killed = kill(start_until(project, lambda _: steps(project) > before))
    assert "training resumes after epoch" in killed
    assert "Running stage 'preprocess'" not in killed
    assert re.findall(r"Running stage '(\w+)'", run_python(project, *REPRO)) == ["train"]

    (run,) = mlflow_runs(project)
    assert (run.info.run_id, run.info.status) == (stopped.info.run_id, "FINISHED")
    history = (project / "reports/train/history.tsv").read_text().splitlines()
    assert len(history) == 1 + TINY["train.epochs"]

    for name in ("download", "preprocess", "train"):
        assert run_stage(name, **TINY, **{"tracking.enabled": False}).code == 0
    assert {name: sha256(project / name) for name in OUTS} == {name: sha256(tmp_path / name) for name in OUTS}
    assert_a_second_training_is_refused(run_stage, tmp_path)


def assert_a_second_training_is_refused(run_stage: Callable[..., Ended], folder: Path) -> None:
    (checkpoints,) = (path for path in (folder / "checkpoints").iterdir() if path.is_dir())
    with CheckpointFolder(checkpoints, keep_best=1):
        second = run_stage("train", **TINY, **{"tracking.enabled": True})
    assert second.code == 2
    assert re.search(r"another training writes its checkpoints here \(process .*\); .*\n$", second.stderr)
    assert not (folder / "mlflow").exists(), "no run was begun"


def kill_when_it_writes(project: Path, written: str) -> None:
    """Kill `dvc repro` as soon as a stage has begun to write this."""
    assert not (project / written).exists()
    kill(start_until(project, lambda _: (project / written).exists()))


def start_until(project: Path, condition: Callable[[Running], bool]) -> Running:
    """`dvc repro`, at the moment at which a condition comes true."""
    running = start_python(project, *REPRO)
    wait_until(lambda: condition(running), running)
    return running


def steps(project: Path) -> int:
    """Those of the newest checkpoint; 0 without one."""
    names = (path.stem for path in project.glob("checkpoints/*/step-*.pt"))
    return max((int(name.removeprefix("step-")) for name in names), default=0)
