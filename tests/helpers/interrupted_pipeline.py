"""`dvc repro` of a tiny project, stopped and killed in the middle of its stages, then run to its end."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dvc_project import Running, kill, make_project, mlflow_runs, processes, run_python, start_python
from mlflow.entities import Run
from waiting import finish, wait_until


@dataclass(frozen=True)
class Interrupted:
    """What was seen on the way.

    project: the folder, in which all stages have run; stopped_output: of the `dvc repro` whose training got
    SIGTERM; stopped_run: its MLflow run, afterwards; killed_output: of the next one, whose training got
    SIGKILL; last_output: of the one that ended.
    """

    project: Path
    stopped_output: str
    stopped_run: Run
    killed_output: str
    last_output: str


def run_interrupted(folder: Path) -> Interrupted:
    """SIGKILL to DVC and the stage, as in a power cut; to training SIGTERM first, as from Kubernetes."""
    project = make_project(folder)
    for written in ("data/raw", "data/tensors"):
        kill(start_until(project, (project / written).exists))

    running = start_until(project, lambda: newest_step(project) > 0)
    (training,) = processes(running, "stages.train")
    training.send_signal(signal.SIGTERM)
    stopped_output = finish(running).stdout
    (stopped_run,) = mlflow_runs(project)

    before = newest_step(project)
    killed_output = kill(start_until(project, lambda: newest_step(project) > before))
    return Interrupted(
        project, stopped_output, stopped_run, killed_output, run_python(project, "dvc", "repro")
    )


def start_until(project: Path, condition: Callable[[], bool]) -> Running:
    """`dvc repro`, at the moment at which a condition comes true that was false before."""
    assert not condition()
    running = start_python(project, "dvc", "repro")
    wait_until(condition, running)
    return running


def newest_step(project: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    names = (path.stem for path in project.glob("checkpoints/*/step-*.pt"))
    return max((int(name.removeprefix("step-")) for name in names), default=0)
