"""Where results come from: the git commit of the code that runs, and what dvc.lock says of the stages."""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import ssd
from ssd.errors import UserError

ROOT = Path(ssd.__file__).parents[1]
INPUTS = ("dvc.yaml", "params.yaml", "cli", "ssd", "stages")
"""What decides the results, in the repository. dvc.lock is none: each stage that runs changes it."""

LOCK = Path("dvc.lock")
AFTER_EVALUATE = ("export", "report")
"""Stages whose entries in dvc.lock are of an earlier run while export runs."""


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


def lock_digest(path: Path = LOCK) -> str | None:
    """SHA-256 of what dvc.lock says of the stages up to evaluate: their code, params, data and results.

    The entries are taken as JSON with sorted keys. None where there is no such file, as outside of DVC.

    Raises:
        UserError: the file is not what DVC writes.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    entries = lock_entries(content, path).items()
    used = {name: entry for name, entry in entries if name not in AFTER_EVALUATE}
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()


def lock_entries(content: bytes, path: Path) -> dict[str, Any]:
    """The stages of a dvc.lock, by name; `path` is for the message.

    Raises:
        UserError: it is not what DVC writes.
    """
    try:
        return dict(YAML(typ="safe", pure=True).load(content)["stages"].items())
    except (YAMLError, AttributeError, TypeError, KeyError, UnicodeDecodeError):
        raise UserError(f"{path}: not what DVC writes; `git checkout {path}`, or delete it") from None


def place_in_git(folder: Path) -> str:
    """The folder's path from git's root, with a slash at its end; "" for the root, and outside of git."""
    try:
        return _git(folder, "rev-parse", "--show-prefix").removesuffix("\n")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True, timeout=30)
    return os.fsdecode(done.stdout)  # names of files need not be UTF-8
