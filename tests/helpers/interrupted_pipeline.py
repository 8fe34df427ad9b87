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

from tests.torture.kills import Kill, Killer, Way, undisturbed
from tests.torture.marked import start_marked
from tests.torture.results import STAGES

NUM_KILLS = 7
"""Two in train, one in each other stage, in all ways; `make torture` kills 150 times."""


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

    project: the folder, in which all stages have run; kills: in train two, described by `stopped`; in the
    others at random moments, `seed` decides which.
    """

    project: Path
    seed: int
    kills: list[Kill]
    stopped: Stopped


def run_interrupted(folder: Path) -> Interrupted:
    """Kill every stage of a new project, in every way, and let it run to its end."""
    project = make_project(folder)
    expected = undisturbed(project)
    seed = secrets.randbelow(10**6)
    sys.stdout.write(f"seed {seed}\n")
    random = Random(seed)
    killer = Killer(project, random)
    plan = dict(zip((stage for stage in STAGES if stage != "train"), other_ways(random), strict=True))
    for stage in STAGES:
        if stage == "train":
            stopped = stop_training(killer)
        else:
            killer.kill(stage, plan[stage])
    killer.finish()
    killer.compare(expected)
    return Interrupted(project, seed, killer.kills, stopped)


def other_ways(random: Random) -> list[Way]:
    """Five ways in random order, all of those in which `stop_training` does not kill among them."""
    ways = [way for way in Way if way not in (Way.RANK, Way.SIGTERM, Way.POWER_CUT)]
    ways.append(random.choice([Way.SIGTERM, Way.POWER_CUT]))
    random.shuffle(ways)
    return ways


def stop_training(killer: Killer) -> Stopped:
    """SIGTERM to a training, as from Kubernetes, and SIGKILL to all when the next one has resumed it."""
    killer.wait()
    project = killer.project
    running = start_marked(project, "dvc", "repro", "train")
    wait_until(lambda: newest_step(project) > 0, running.process)
    training = running.stages()["train"]
    training.suspend()  # or it might end before the second one comes
    second = finish(start([sys.executable, "-m", "stages.train"], environment(), project))
    training.resume()
    training.send_signal(signal.SIGTERM)
    killer.struck(Way.SIGTERM, "train", running)
    (run,) = mlflow_runs(project)

    resumed = start_marked(project, "dvc", "repro", "train")
    wait_until(lambda: "training resumes" in resumed.text, resumed.process)
    runs = mlflow_runs(project)
    resumed.signal_all(signal.SIGKILL)
    killer.struck(Way.POWER_CUT, "train", resumed)
    return Stopped(second, training.pid, running.text, run, resumed.text, runs)


def newest_step(project: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    names = (path.stem for path in project.glob("checkpoints/*/step-*.pt"))
    return max((int(name.removeprefix("step-")) for name in names), default=0)
