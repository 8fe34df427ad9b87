"""The model of a git revision: models/model.pt as dvc.lock names it there, from DVC's cache or remote."""

import subprocess
from pathlib import Path

from ssd.errors import UserError, first_line
from ssd.files import expand_home

PREFIX = "git:"
MODEL = "models/model.pt"


def revision_in(text: str) -> str | None:
    """REV of git:REV, and of a plain revision that is no file; None for anything else."""
    if text.startswith(PREFIX):
        return text.removeprefix(PREFIX)
    if expand_home(text).exists() or Path(text).suffix in (".pt", ".onnx"):
        return None
    command = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{text}^{{commit}}"]
    try:
        known = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:  # no git here
        return None
    return text if known else None


def fetch_revision(revision: str, root: Path, folder: Path) -> Path:
    """Copy the model of a git revision into a folder.

    Args:
        root: the repository.

    Raises:
        UserError: git has no such revision, it has no model, or DVC has not kept that model.
    """
    import dvc.api
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    target = folder / "model.pt"
    try:
        with (
            dvc.api.open(MODEL, repo=str(root), rev=revision, mode="rb") as source,
            target.open("wb") as copy,
        ):
            while block := source.read(1 << 20):
                copy.write(block)
    except (DvcException, SCMError, FileNotFoundError) as error:
        raise UserError(
            f"{PREFIX}{revision}: DVC has no {MODEL} of this revision here ({first_line(error)}); "
            "`dvc pull --all-commits` may bring it"
        ) from None
    return target
