"""A worker process of `ssd.processes.launch`: ends with its launcher and reports its error to it."""

import json
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ssd.errors import LostProcessError, UserError, storage_errors_explained
from ssd.interrupt import StopSignal

LAUNCHER = "SSD_LAUNCHER"
"""The environment variable that holds the launcher's process id."""

ERRORS = "SSD_ERRORS"
"""The environment variable that holds the folder for error reports."""


@dataclass(frozen=True)
class ProcessError:
    """The error that ended a process.

    text: a traceback, or the one line of a UserError or LostProcessError; kind: user is a UserError, lost a
    LostProcessError, bug any other; key, path: of the UserError; rank: of the process; time_ns: since 1970,
    to find the first error.
    """

    text: str
    kind: Literal["user", "lost", "bug"]
    key: str
    path: str | None
    rank: int
    time_ns: int

    def as_user_error(self) -> UserError:
        """The UserError as it was raised."""
        message = self.text.removeprefix(f"{self.key}: ") if self.key else self.text
        return UserError(message, key=self.key, path=self.path)


def end_with_launcher(stop: StopSignal) -> None:
    """Under a launcher, stop if it dies, even by SIGKILL; see `StopSignal.send_when`."""
    # Linux can send a signal when the parent dies (PR_SET_PDEATHSIG), but it sends one per thread of the
    # parent, and a second SIGTERM interrupts the shutdown that the first one began.
    if LAUNCHER in os.environ:
        launcher = int(os.environ[LAUNCHER])
        stop.send_when(lambda: os.getppid() != launcher)


@contextmanager
def report_errors() -> Iterator[None]:
    """Under a launcher, write an error to a file for it instead of printing it; otherwise do nothing.

    An error in one process makes the others fail too, at their next collective operation. So that the
    terminal shows only the root cause, no process prints its error; the launcher logs the first one. (With
    torch.distributed.elastic's `record` each process prints its error, and times are in whole seconds.)

    Raises:
        SystemExit: instead of the error, which has been written; code 2 for a UserError, else 1.
    """
    try:
        with storage_errors_explained():
            yield
    except Exception as error:
        if ERRORS not in os.environ:
            raise
        _write_error(error, Path(os.environ[ERRORS]))
        # The launcher now sends SIGTERM to all processes; this one is already exiting.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(2 if isinstance(error, UserError) else 1) from error


def first_error(folder: Path) -> ProcessError | None:
    """The earliest error reported in `folder`; None if there is none."""
    errors = (ProcessError(**json.loads(path.read_text())) for path in folder.glob("*.json"))
    return min(errors, key=lambda error: error.time_ns, default=None)


def _write_error(error: Exception, folder: Path) -> None:
    rank, now = int(os.environ["RANK"]), time.time_ns()
    if isinstance(error, UserError):
        path = None if error.path is None else str(error.path)
        content = ProcessError(str(error), "user", error.key, path, rank, now)
    elif isinstance(error, LostProcessError):
        content = ProcessError(str(error), "lost", "", None, rank, now)
    else:
        content = ProcessError("".join(traceback.format_exception(error)), "bug", "", None, rank, now)
    (folder / f"{rank}.json").write_text(json.dumps(asdict(content)))
