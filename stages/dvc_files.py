"""Files that stages wrote in a commit or an experiment, from DVC's cache."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssd.errors import UserError, first_line
from ssd.files import replacing
from stages.revision import LOCK, lock_entries, place_in_git


def read_output(revision: str, path: str) -> str:
    """The text of a file that a stage wrote; `revision`: git's; `path`: from this folder.

    Raises:
        UserError: DVC has not kept it here.
    """
    import dvc.api

    with _kept(revision, path) as place:
        return str(dvc.api.read(place, rev=revision))


def copy_output(revision: str, path: str, target: Path) -> None:
    """Copy a file that a stage wrote, as `read_output` names it; the copy is complete or not there.

    Raises:
        UserError: DVC has not kept it here.
    """
    import dvc.api

    with (
        _kept(revision, path) as place,
        dvc.api.open(place, rev=revision, mode="rb") as source,
        replacing(target) as part,
        part.open("wb") as copy,
    ):
        shutil.copyfileobj(source, copy)


def recorded_digest(output: str, revision: str | None = None) -> str:
    """The MD5 that dvc.lock records of what a stage wrote, here or in a commit; "" where it records none.

    Raises:
        UserError: the file is not what DVC writes.
    """
    if revision:
        command = ["git", "show", f"{revision}:./{LOCK}"]
        content = subprocess.run(command, capture_output=True, check=False).stdout
    else:
        content = LOCK.read_bytes() if LOCK.is_file() else b""
    stages = lock_entries(content, LOCK).values() if content else []
    outs = (out for stage in stages for out in stage.get("outs", []))
    return next((str(out["md5"]) for out in outs if out["path"] == output), "")


@contextmanager
def _kept(revision: str, path: str) -> Iterator[str]:
    """The path from git's root, by which DVC names files of a commit; says so if the file is not there."""
    from dvc.exceptions import DvcException

    try:
        yield f"{place_in_git(Path())}{path}"
    except (DvcException, FileNotFoundError) as error:
        raise UserError(
            f"DVC has no {path} of {revision} here ({first_line(error)}); `dvc exp pull` may bring it"
        ) from None
