"""A process under `ssd.processes.launch`: it ends with its launcher and hands its error over."""

import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ssd.errors import UserError

LAUNCHER = "SSD_LAUNCHER"
"""The environment variable that names the launcher's process id."""

ERRORS = "SSD_ERRORS"
"""The environment variable that names the folder for errors."""

GRACE_SECONDS = 120
"""What a process has to save and end after a signal, before it is killed."""


@dataclass(frozen=True)
class ProcessError:
    """What ended a process.

    text: a traceback, or the message of a UserError; by_user: which of the two; key, path: of the UserError;
    rank: of the process; time_ns: since 1970, to tell the cause from what followed.
    """

    text: str
    by_user: bool
    key: str
    path: str | None
    rank: int
    time_ns: int

    def as_user_error(self) -> UserError:
        """The UserError as it was raised."""
        message = self.text.removeprefix(f"{self.key}: ") if self.key else self.text
        return UserError(message, key=self.key, path=self.path)


def end_with_launcher() -> None:
    """Under a launcher, stop when it is gone, even by SIGKILL: SIGTERM, and SIGKILL after GRACE_SECONDS."""
    if LAUNCHER in os.environ:
        threading.Thread(target=_outlive_briefly, args=[int(os.environ[LAUNCHER])], daemon=True).start()


@contextmanager
def report_errors() -> Iterator[None]:
    """Under a launcher, let it tell of errors; else nothing.

    One process's error makes the others fail too, at their next exchange. So that the terminal shows the
    cause alone, no process prints its own. (torch.distributed.elastic's `record` lets each print its own, and
    notes the time in whole seconds, in which cause and consequence cannot be told apart.)

    Raises:
        SystemExit: instead of an error, which has been handed over; code 2 for a UserError, else 1.
    """
    try:
        yield
    except Exception as error:
        if ERRORS not in os.environ:
            raise
        _write_error(error, Path(os.environ[ERRORS]))
        # The launcher stops everybody now; this process is on its way.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(2 if isinstance(error, UserError) else 1) from error


def first_error(folder: Path) -> ProcessError | None:
    """The earliest error that was handed over in `folder`; None where there is none."""
    errors = (ProcessError(**json.loads(path.read_text())) for path in folder.glob("*.json"))
    return min(errors, key=lambda error: error.time_ns, default=None)


def _outlive_briefly(launcher: int) -> None:
    # Linux can send a signal by itself when a parent ends (PR_SET_PDEATHSIG), but it sends one for each of
    # the parent's threads, and a second SIGTERM cuts short what the first one began.
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _write_error(error: Exception, folder: Path) -> None:
    rank, now = int(os.environ["RANK"]), time.time_ns()
    if isinstance(error, UserError):
        path = None if error.path is None else str(error.path)
        content = ProcessError(str(error), True, error.key, path, rank, now)
    else:
        content = ProcessError("".join(traceback.format_exception(error)), False, "", None, rank, now)
    (folder / f"{rank}.json").write_text(json.dumps(asdict(content)))
