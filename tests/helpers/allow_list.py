"""What .dockerignore lets into the image. This reads the three kinds of lines that it has."""

from pathlib import PurePosixPath

from default_params import REPOSITORY

NOTHING, COMPILED = "*", "**/__pycache__"


def patterns() -> list[str]:
    """The lines of .dockerignore, without comments."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def allowed() -> list[str]:
    """Files and folders that may pass: everything between the first line and the last."""
    first, *names, last = patterns()
    assert (first, last) == (NOTHING, COMPILED)
    assert all(name.startswith("!") and "*" not in name for name in names)
    return [name.removeprefix("!") for name in names]


def in_allow_list(name: str) -> bool:
    """Whether a file, named from the root of the repository, gets into the image."""
    path = PurePosixPath(name)
    return "__pycache__" not in path.parts and any(path.is_relative_to(entry) for entry in allowed())
