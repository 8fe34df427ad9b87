"""UserError, the exception type for errors that the user can mend."""

import re
from pathlib import Path


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
