"""Other processes, waited for however slow the machine is: the only time limit is pytest's, per test."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """What is left of a process: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str


def start(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> subprocess.Popen[str]:
    """Start a process that leads a session of its own, with pipes for what it prints."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> Ended:
    """Wait for a process that leads a session of its own; nothing of it is left when the test fails."""
    try:
        output, errors = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, output or "", errors or "")


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str] | None = None, pause: float = 0.01
) -> None:
    """Wait for something that a process, which leads a session of its own, is to bring about, if one is
    given; `pause` seconds between two looks.

    Raises:
        AssertionError: the process has ended, with what it printed, or pytest's time limit has passed; then
            nothing of it is left.
    """
    try:
        while not condition():
            assert process is None or process.poll() is None, f"it has ended: {finish(process)}"
            time.sleep(pause)
    except BaseException:
        if process is not None and process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        raise
