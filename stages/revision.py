"""The git commit of the code that runs, and whether code or params differ from it."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import ssd

ROOT = Path(ssd.__file__).parents[1]
INPUTS = ("dvc.yaml", "params.yaml", "cli", "ssd", "stages")
"""What decides the results, in the repository. dvc.lock is none: each stage that runs changes it."""


@dataclass(frozen=True)
class Revision:
    """commit: 40 hex digits; changed: files of INPUTS that differ from it, new ones included."""

    commit: str
    changed: list[str]


def revision(root: Path = ROOT) -> Revision | None:
    """Of the repository at `root`; None where that is no git repository's root, or git is missing."""
    try:
        top = Path(_git(root, "rev-parse", "--show-toplevel").strip())
        if (
            top.resolve() != root.resolve()
        ):  # a repository that the environment of an installed package lies in
            return None
        commit = _git(root, "rev-parse", "HEAD").strip()
        listing = _git(root, "status", "--porcelain", "-z", "--no-renames", "--", *INPUTS)
    except (OSError, subprocess.SubprocessError):
        return None
    return Revision(commit, [entry[3:] for entry in listing.split("\0") if entry])


def commit_and_dirty() -> tuple[str | None, bool | None]:
    """Of the code that runs: its commit, and whether code or params differ from it; None if not known."""
    here = revision()
    return (None, None) if here is None else (here.commit, bool(here.changed))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout
