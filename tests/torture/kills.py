"""Kills a pipeline again and again, in all of its stages and ways, and compares what it has in the end."""

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random

import psutil
from dvc_project import environment, set_params
from filelock import FileLock, Timeout

from tests.torture.marked import Marked, children, cpu_seconds, stage_name, start_marked
from tests.torture.results import STAGES, Results, differing_bits, results

REFUSED = re.compile(r"another process runs|another training writes")
TRACEBACK = "Traceback (most recent call last)"
CUT_OFF = re.compile(r"RWLock-file .* corrupted")
STUCK = re.compile(r"Unable to acquire|is busy, it is being blocked|database is locked")
ONE_AFTER_THE_OTHER = f"""
import os
from stages import {", ".join(STAGES)}
for stage in ({", ".join(STAGES)}):
    process = os.fork()
    if process == 0:
        stage.main()
        os._exit(0)
    assert os.waitpid(process, 0)[1] == 0, stage
"""
"""Each stage in a process of its own, with imports that are shared."""

MANY = 3
"""Commands in a row that find the same lock: it will stay."""

CPU_SECONDS = {
    "download": 4.0,
    "preprocess": 4.0,
    "train": 8.0,
    "evaluate": 8.0,
    "export": 16.0,
    "report": 8.0,
}
"""What the stages need, imports included, as a first guess of when to kill."""


class Way(StrEnum):
    """How a pipeline is killed."""

    POWER_CUT = "SIGKILL to all"
    SIGTERM = "SIGTERM to all"
    CTRL_C = "SIGINT to all"
    DVC = "SIGKILL to DVC alone"
    STAGE = "SIGKILL to the stage alone"
    TEMP = "SIGKILL to all of dvc exp run --temp"
    RANK = "SIGKILL to one of 2 processes"


@dataclass
class Kill:
    """What a kill has done.

    way: of killing; planned: the stage that was to be killed; struck: what ran then, a stage or "dvc"; text:
    printed by what was killed; orphans: processes that had to be killed after it; stuck: commands after it
    that found a lock; refused: commands after it that found the killed stage still saving; mended: commands
    after it that found DVC's file of locks cut off, which `make repro` deletes; bits: that differ in the end,
    in what the stage writes.
    """

    way: Way
    planned: str
    struck: str
    text: str = ""
    orphans: int = 0
    stuck: int = 0
    refused: int = 0
    mended: int = 0
    bits: int = 0

    @property
    def tracebacks(self) -> int:
        """The number of them in the text."""
        return self.text.count(TRACEBACK)

    @property
    def is_harmless(self) -> bool:
        """Whether it cost nothing but time."""
        return not (self.bits or self.tracebacks or self.orphans or self.stuck)


@dataclass
class Killer:
    """Kills one project.

    Attributes:
        project: where `dvc repro` runs.
        random: decides the moments.
        kills: those so far.
        dying: commands of which not everything has ended yet, and their kills.
        cpu_seconds: of each stage, as seen so far.
    """

    project: Path
    random: Random
    kills: list[Kill] = field(default_factory=list)
    dying: list[tuple[Kill, Marked]] = field(default_factory=list)
    cpu_seconds: dict[str, float] = field(default_factory=CPU_SECONDS.copy)

    def kill(self, stage: str, way: Way) -> Kill:
        """Start the pipeline up to a stage, once more, and kill it somewhere in that stage, or just after."""
        part = self.random.uniform(0, 1.1)
        command = ("exp", "run", "--temp") if way is Way.TEMP else ("repro",)
        force: tuple[str, ...] = ()
        while True:
            running = start_marked(self.project, "dvc", *command, *force, stage)
            target = self._wait_for_moment(running, stage, part)
            if target is not None:
                break
            if self._has_run(running):
                force = ("--force", "--single-item")
        struck = next(iter(running.stages()), "dvc")
        strike(running, target, way, self.random)
        kill = Kill(way, stage, struck)
        self.kills.append(kill)
        self.dying.append((kill, running))
        if way is Way.DVC:
            running.process.wait()  # the next command comes at once, as from somebody in a hurry
        else:
            self.wait()
        return kill

    def struck(self, way: Way, stage: str, running: Marked) -> None:
        """Count a kill by somebody else, and wait for the end of what was killed."""
        self.kills.append(Kill(way, stage, stage))
        self.dying.append((self.kills[-1], running))
        self.wait()

    def wait(self) -> None:
        """Wait for the end of all that was killed."""
        for kill, running in self.dying:
            kill.orphans += running.wait()
            kill.text = running.text
        self.dying.clear()

    def finish(self) -> None:
        """Run the pipeline to its end."""
        while not self._has_run(running := start_marked(self.project, "dvc", "repro")):
            pass
        assert TRACEBACK not in running.text, running.text

    def compare(self, expected: Results) -> None:
        """Note in each kill the bits that differ from what its stage wrote without one; once all has run."""
        found = results(self.project)
        for kill in self.kills:
            kill.bits = differing_bits(found[kill.planned], expected[kill.planned])

    def _wait_for_moment(self, running: Marked, stage: str, part: float) -> psutil.Process | None:
        """Wait until the stage has had that part of its CPU time, or has ended; its process.

        None where the stage was not run, or was refused.
        """
        target, used = None, 0.0
        while target is None:
            if running.ended():
                return None
            time.sleep(0.05)
            target = running.stages().get(stage)
        moment = part * self.cpu_seconds[stage]
        while used < moment:
            time.sleep(0.05)
            now = cpu_seconds(target)
            if now is None:
                if REFUSED.search(running.text):
                    running.process.wait()
                    return None
                self.cpu_seconds[stage] = used
                return target
            used = now
        return target

    def _has_run(self, running: Marked) -> bool:
        """Wait for a command; whether it has ended well, or else in what the last kill has left.

        Raises:
            AssertionError: it failed for another reason.
        """
        running.wait()
        self.wait()
        if running.process.returncode == 0:
            return True
        if CUT_OFF.search(running.text):
            command = [sys.executable, "-m", "stages.check_params"]  # as `make repro` begins
            subprocess.run(command, cwd=self.project, env=environment(), check=True)
            self.kills[-1].mended += 1
            return False
        refused, stuck = REFUSED.search(running.text), STUCK.search(running.text)
        assert self.kills and (refused or stuck), running.text
        self.kills[-1].refused += bool(refused)
        self.kills[-1].stuck += bool(stuck)
        assert self.kills[-1].stuck < MANY, running.text
        return False


def strike(running: Marked, target: psutil.Process, way: Way, random: Random) -> None:
    """Send the signals; what has just ended by itself gets none."""
    if way in (Way.POWER_CUT, Way.TEMP):
        running.signal_all(signal.SIGKILL)
    elif way is Way.SIGTERM:
        running.signal_all(signal.SIGTERM)
    elif way is Way.CTRL_C:
        running.signal_all(signal.SIGINT)
    elif way is Way.DVC:
        running.process.kill()
    else:
        ranks = [process for process in children(target.pid) if stage_name(process)]
        for process in [random.choice(ranks)] if way is Way.RANK and ranks else [target]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                running.process.kill()


def undisturbed(project: Path, **changes: object) -> Results:
    """What the stages write, by these params, where nobody kills them; all of it is deleted again."""
    set_params(project, **{**changes, "tracking.enabled": False})
    commands = [["-c", ONE_AFTER_THE_OTHER]]
    if changes.get("train.devices", 1) != 1:  # torch's launcher does not survive a fork
        commands = [["-m", f"stages.{stage}"] for stage in STAGES]
    for command in commands:
        arguments = [sys.executable, *command]
        subprocess.run(arguments, cwd=project, env=environment(), stdout=subprocess.DEVNULL, check=True)
    expected = results(project)
    for name in ("data/raw", "data/tensors", "models", "reports", "checkpoints"):
        shutil.rmtree(project / name)
    set_params(project, **changes)
    return expected


def held_locks(project: Path) -> list[Path]:
    """The locks of stages, trainings and the tracking store that somebody still holds."""
    found = [*project.glob(".dvc/tmp/stages/*.lock"), *project.glob("checkpoints/*/.lock")]
    return [path for path in (*found, *project.glob("mlflow/.lock")) if is_held(path)]


def is_held(path: Path) -> bool:
    """Whether a process holds a lock file."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False
