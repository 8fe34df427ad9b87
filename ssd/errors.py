"""The one exception type that a user is meant to read."""


class UserError(ValueError):
    """A mistake in params, data or set-up that the user can mend.

    Its message is one line: what is wrong, where, and how to mend it. The stages print that line
    and exit with code 2; every other exception is a bug and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        # A DataLoader hands on what a worker process raised as a text: a traceback that ends with the line.
        marker = "ssd.errors.UserError: "
        super().__init__(message.rpartition(marker)[2].strip() if marker in message else message)
