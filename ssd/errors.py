"""The exceptions that end a stage with one line: UserError, what the user can mend, and LostProcessError."""

from pathlib import Path


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
