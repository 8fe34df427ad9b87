"""Which process writes an MLflow run: known by a lock that the kernel frees when the process ends.

A process that is killed cannot close its run, which would stay RUNNING for ever. So each process that writes
runs holds a lock on a file in `mlflow/writers`, and tags its runs with the file's name. A file that is not
locked is of a process that ended without closing its runs: the next one closes them.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of Linux; containers share their machine's


class Writer:
    """This process, as one that writes runs. It is alive until it ends, or is `gone`.

    Args:
        folder: of the lock files, created if it does not exist.
        store: names the tracking store and the experiment, in letters and digits.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, store: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = f"{store}.{uuid4().hex}.{_boot_id()}.{socket.gethostname()}"
        self._file = folder / self.name
        self._lock = FileLock(self._file)
        self._lock.acquire()

    def alive(self) -> None:
        """Note the time: until now the runs have been written."""
        os.utime(self._file)

    def gone(self) -> None:
        """All runs are closed."""
        self._file.unlink(missing_ok=True)
        self._lock.release()


@dataclass(frozen=True)
class DeadWriter:
    """A process that has ended with open runs.

    name: the tag of its runs; last_seen: Unix time in seconds of its last `alive`.
    """

    name: str
    last_seen: float


def dead_writers(folder: Path, store: str) -> Iterator[DeadWriter]:
    """Those of a store, each of which is forgotten after the caller has dealt with it.

    Processes of other machines, which share the folder over a network, are never among them: their locks may
    be invisible here.
    """
    for file in sorted(folder.glob(f"{store}.*")):
        boot_id, host = file.name.split(".", 3)[2:]
        same_kernel = bool(boot_id) and boot_id == _boot_id()
        if not same_kernel and host != socket.gethostname():
            continue
        last_seen = file.stat().st_mtime
        with suppress(Timeout), FileLock(file, blocking=False):
            yield DeadWriter(file.name, last_seen)
            file.unlink(missing_ok=True)


def _boot_id() -> str:
    """Empty where there is none."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
