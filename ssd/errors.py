"""The exceptions that end a stage with one line: UserError, what the user can mend, and LostProcessError."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_ROOM = "make room and run again"
_NO_RIGHT = "this user needs the right to read and write there"
_IN_THE_WAY = "move away the file or folder in its place"

STORAGE_ERRORS = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "the largest size of a file here, by `ulimit -f` or the file system, is too small",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: _NO_RIGHT,
    errno.EIO: "the disk may be failing; its messages are in the system's log",
    errno.ESTALE: "the file server has another file there now; run again",
    errno.ENAMETOOLONG: "shorten it",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
}
"""How to mend the errors of the operating system that are about the disk, and not about the program."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters; its type where it has none.

    Of torch's message about a pickle, which begins with advice to run it, what torch found.
    """
    message = str(error).strip()
    found = re.search(r"WeightsUnpickler error:\s*(.+?)(?:\. Please|$)", message, re.MULTILINE)
    if found:
        return found[1][:200]
    return (message.splitlines() or [type(error).__name__])[0][:200]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, by Python's exception or by what one of torch's says.

    A file that cannot be read for want of memory is not damaged.
    """
    said = re.search(r"(allocate|out of|enough) memory", str(error), re.IGNORECASE)
    return isinstance(error, MemoryError) or said is not None


class UserError(ValueError):
    """A mistake in params, data or set-up that the user can mend.

    Its message is one line: what is wrong, where, and how to mend it. The stages print that line, with a hint
    that depends on `key` and `path`, and exit with code 2; every other exception is a bug and keeps its
    traceback.

    Attributes:
        key: the parameter that has to change, as "section.name"; the message begins with it. "" for none.
        path: a file or folder that is missing or damaged and can be created again; None for none.
    """

    def __init__(self, message: str, *, key: str = "", path: str | Path | None = None) -> None:
        # A DataLoader re-raises a worker's exception with a traceback as its message: take the last line.
        marker = "ssd.errors.UserError: "
        if marker in message:
            message = message.rpartition(marker)[2].strip()
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.path = None if path is None else Path(path)


class LostProcessError(RuntimeError):
    """Another process of a training has ended or does not answer: no bug of this process, and no mistake.

    Its message is one line. The stages print that line and exit with code 1, after which a training with
    `train.restarts` starts again.
    """


@contextmanager
def storage_errors_explained() -> Iterator[None]:
    """Turn an OSError of the block that is about the disk into a UserError; others are bugs and stay.

    Raises:
        UserError: the disk is full, read-only, not permitted or failing; with the path, if the error has one.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        place = Path(error.filename) if isinstance(error.filename, str) else Path.cwd()
        free = f" ({_free_bytes(place) / 1e6:.1f} MB free)" if error.errno == errno.ENOSPC else ""
        remedy = STORAGE_ERRORS[error.errno]
        raise UserError(f"{place}: {error.strerror}{free}; {remedy}") from error


def _free_bytes(path: Path) -> int:
    """On the disk of the nearest folder that exists."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    return shutil.disk_usage(folder).free
