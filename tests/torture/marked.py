"""A command, and all processes that come from it, found by a variable in their environment."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from dvc_project import environment

MARK = "TORTURE"
ORPHAN_SECONDS = 300
"""After this time a process is an orphan; a stage kills itself 120 s after its DVC has ended."""


@dataclass(frozen=True)
class Marked:
    """`python -m ARGUMENTS`, which leads a session of its own, and the file with what all of it prints."""

    process: subprocess.Popen[bytes]
    mark: str
    log: Path

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")

    def ended(self) -> bool:
        """Whether the command itself has."""
        return self.process.poll() is not None

    def signal_all(self, number: signal.Signals) -> None:
        """A signal to the process group, as by Ctrl-C; if nothing of it is left, none."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stages(self) -> dict[str, psutil.Process]:
        """The process of each stage that runs now, by its name; the launcher of those that are several."""
        found: dict[str, psutil.Process] = {}
        for process in children(self.process.pid):
            name = stage_name(process)
            if name:
                found.setdefault(name, process)
        return found

    def processes(self) -> list[psutil.Process]:
        """All that still run, the command included."""
        return [process for process in psutil.process_iter() if mark_of(process) == self.mark]

    def wait(self) -> int:
        """Wait until nothing of it runs; kill what remains, and return how many that were."""
        self.process.wait()
        until = time.monotonic() + ORPHAN_SECONDS
        while orphans := self.processes():
            if time.monotonic() > until:
                for process in orphans:
                    process.kill()
                return len(orphans)
            time.sleep(0.05)
        return 0


def start_marked(project: Path, *arguments: str) -> Marked:
    """Start `python -m ARGUMENTS` in a project; the log is beside it."""
    mark = uuid.uuid4().hex
    log = project.parent / f"{project.name}-logs" / f"{mark}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=project,
            env={**environment(), MARK: mark},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Marked(process, mark, log)


def children(pid: int) -> list[psutil.Process]:
    """All processes below one, parents first; none where it has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def stage_name(process: psutil.Process) -> str:
    """`python -m stages.train` is train; empty for any other process."""
    try:
        words = process.cmdline()
    except psutil.Error:  # it has just ended
        return ""
    return words[2].removeprefix("stages.") if words[1:2] == ["-m"] and words[2].startswith("stages.") else ""


def mark_of(process: psutil.Process) -> str:
    """The mark that a process got from the command it comes from; empty without one."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.environ().get(MARK, "")
    except psutil.Error:
        return ""


def cpu_seconds(process: psutil.Process) -> float | None:
    """The CPU time that a process and those below it have had; None where it has ended."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    except psutil.Error:
        return None
    return sum(each.user + each.system for each in times)
