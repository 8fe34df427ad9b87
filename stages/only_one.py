"""Keeps a second process from running the same stage in the same folder: it would write the same files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssd.errors import UserError
from ssd.lock import LockedError, ProcessLock

PROJECT, LOCKS = Path(".dvc"), Path(".dvc/tmp/stages")
"""DVC's folder, and the one for locks in its folder of temporary files, which neither git nor DVC keeps."""


@contextmanager
def only_one(stage: str, folder: Path = Path()) -> Iterator[None]:
    """Run the block if no other process is in that of this stage, in this folder.

    Outside of a project of DVC, which nothing but a test is, there is no lock.

    Args:
        stage: its name.
        folder: another one than the current folder, as the copy of an experiment.

    Raises:
        UserError: another process is, or its lock cannot be written.
    """
    if not (folder / PROJECT).is_dir():
        yield
        return
    lock, place = ProcessLock(folder / LOCKS, stage), "this folder" if folder == Path() else folder
    try:
        lock.acquire()
    except LockedError as error:
        raise UserError(
            f"another process runs {stage} in {place} ({error.holder}); wait until it ends, or end it, "
            "and start again"
        ) from None
    except OSError as error:
        lock.release()
        raise UserError(f"{folder / LOCKS}: not writable: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()
