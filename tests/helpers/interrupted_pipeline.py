"""A tiny pipeline that is killed in all of its stages, and stopped in training, on the way to its end."""

import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from dvc_project import environment, make_project, mlflow_runs
from mlflow.entities import Run
from waiting import Ended, finish, start, wait_until

from tests.torture.campaign import make_plan
from tests.torture.kills import Kill, Killer, undisturbed
from tests.torture.marked import start_marked

NUM_KILLS = 6
"""One in each stage, one in each way; `make torture` kills 150 times."""


@dataclass(frozen=True)
class Stopped:
    """A training that got SIGTERM, and the next one, which got SIGKILL when it had resumed.

    second: a training that was started beside the first; pid, output, run: of the first, with its MLflow run
    when it had ended; resumed_output, resumed_runs: of the next, with all MLflow runs while it trained.
    """

    second: Ended
    pid: int
    output: str
    run: Run
    resumed_output: str
    resumed_runs: list[Run]


@dataclass(frozen=True)
class Interrupted:
    """What was seen on the way.

    project: the folder, in which all stages have run; kills: at random moments, `seed` decides which;
    stopped: what happened in between.
    """

    project: Path
    seed: int
    kills: list[Kill]
    stopped: Stopped


def run_interrupted(folder: Path) -> Interrupted:
    """Kill every stage of a new project some times, in every way, and let it run to its end."""
    project = make_project(folder)
    expected = undisturbed(project)
    seed = secrets.randbelow(10**6)
    sys.stdout.write(f"seed {seed}\n")
    random = Random(seed)
    killer = Killer(project, random)
    plan = make_plan(NUM_KILLS, random)
    before = [stage for stage, _ in plan].index("train")
    for stage, way in plan[:before]:
        killer.kill(stage, way)
    killer.wait()
    stopped = stop_training(project)
    for stage, way in plan[before:]:
        killer.kill(stage, way)
    killer.finish()
    killer.compare(expected)
    return Interrupted(project, seed, killer.kills, stopped)


def stop_training(project: Path) -> Stopped:
    """SIGTERM to a training, as from Kubernetes, and SIGKILL to that which resumes it."""
    running = start_marked(project, "dvc", "repro", "train")
    wait_until(lambda: newest_step(project) > 0, running.process)
    training = running.stages()["train"]
    training.suspend()  # or it might end before the second one comes
    second = finish(start([sys.executable, "-m", "stages.train"], environment(), project))
    training.resume()
    training.send_signal(signal.SIGTERM)
    assert running.wait() == 0
    (run,) = mlflow_runs(project)

    resumed = start_marked(project, "dvc", "repro", "train")
    wait_until(lambda: "training resumes" in resumed.text, resumed.process)
    runs = mlflow_runs(project)
    resumed.signal_all(signal.SIGKILL)
    assert resumed.wait() == 0
    return Stopped(second, training.pid, running.text, run, resumed.text, runs)


def newest_step(project: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    names = (path.stem for path in project.glob("checkpoints/*/step-*.pt"))
    return max((int(name.removeprefix("step-")) for name in names), default=0)
