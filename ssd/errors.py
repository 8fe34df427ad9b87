"""The one exception type that a user is meant to read."""


class UserError(ValueError):
    """A mistake in params, data or set-up that the user can mend.

    Its message is one line: what is wrong, where, and how to mend it. The stages print that line
    and exit with code 2; every other exception is a bug and keeps its traceback.
    """
