"""A lock between processes, which names its holder and ends with it, even by SIGKILL."""

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from ssd.files import write_bytes


class LockedError(Exception):
    """Another process holds the lock.

    Attributes:
        holder: its process id and machine, "123 on host"; "unknown" where it has not written them yet.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class ProcessLock:
    """A lock file, `FOLDER/NAME.lock`, and beside it `NAME.holder`, which names the process that holds it.

    Args:
        folder: created if it does not exist.
        name: of what is locked; may be empty.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self._lock = FileLock(folder / f"{name}.lock")
        self._holder = folder / f"{name}.holder"

    def acquire(self) -> None:
        """Take the lock, until `release` or the end of this process.

        Raises:
            LockedError: another process holds it.
            OSError: the folder cannot be created or written.
        """
        self._holder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise LockedError(self._read_holder()) from None
        write_bytes(self._holder, f"{os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        self._lock.release()

    def _read_holder(self) -> str:
        return self._holder.read_text() if self._holder.is_file() else "unknown"
