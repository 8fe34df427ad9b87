"""Files that stages wrote in a commit or an experiment, from DVC's cache."""

import shutil
from pathlib import Path

from ssd.errors import UserError, first_line
from ssd.files import replacing
from stages.revision import place_in_git


def read_output(revision: str, path: str) -> str:
    """The text of a file that a stage wrote; `revision`: git's; `path`: from this folder."""
    import dvc.api

    # Of a commit, DVC names files from git's root.
    return str(dvc.api.read(f"{place_in_git(Path())}{path}", rev=revision))


def copy_output(revision: str, path: str, target: Path) -> None:
    """Copy a file that a stage wrote, as `read_output` names it; it is complete or not there.

    Raises:
        UserError: DVC has not kept it here.
    """
    import dvc.api
    from dvc.exceptions import DvcException

    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            dvc.api.open(f"{place_in_git(Path())}{path}", rev=revision, mode="rb") as source,
            replacing(target) as part,
            part.open("wb") as copy,
        ):
            shutil.copyfileobj(source, copy)
    except (DvcException, FileNotFoundError) as error:
        raise UserError(
            f"DVC has no {path} of {revision} here ({first_line(error)}); `dvc exp pull` may bring it"
        ) from None
