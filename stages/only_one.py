"""Keeps a second process from running the same stage in the same folder: it would write the same files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssd.errors import UserError
from ssd.lock import LockedError, ProcessLock

PROJECT, LOCKS = Path(".dvc"), Path(".dvc/tmp/stages")
"""DVC's folder, and the one for locks in its folder of temporary files, which neither git nor DVC keeps."""


@contextmanager
def only_one(stage: str) -> Iterator[None]:
    """Run the block if no other process is in that of this stage, in this folder.

    Outside of a project of DVC, which nothing but a test is, there is no lock.

    Raises:
        UserError: another process is, or its lock cannot be written.
    """
    if not PROJECT.is_dir():
        yield
        return
    lock = ProcessLock(LOCKS, stage)
    try:
        lock.acquire()
    except LockedError as error:
        raise UserError(
            f"another process runs {stage} in this folder ({error.holder}); wait until it ends, or end it, "
            "and start again"
        ) from None
    except OSError as error:
        lock.release()
        raise UserError(f"{LOCKS}: not writable: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()
