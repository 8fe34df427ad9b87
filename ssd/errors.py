"""The one exception type that a user is meant to read."""

from pathlib import Path


class UserError(ValueError):
    """A mistake in params, data or set-up that the user can mend.

    Its message is one line: what is wrong, where, and how to mend it. Whoever speaks to the user (the stages)
    prints that line, completed by what is known there of `key` and `path`, and exits with code 2; every other
    exception is a bug and keeps its traceback.

    Attributes:
        key: the parameter that has to change, as "section.name"; the message begins with it. "" for none.
        path: a file or folder that is missing or damaged and could be made again; None for none.
    """

    def __init__(self, message: str, *, key: str = "", path: str | Path | None = None) -> None:
        # A DataLoader hands on what a worker process raised as a text: a traceback that ends with the line.
        marker = "ssd.errors.UserError: "
        if marker in message:
            message = message.rpartition(marker)[2].strip()
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.path = None if path is None else Path(path)
