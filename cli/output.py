"""Whether `--out` can be written to, asked before what takes long."""

import os
from pathlib import Path

from ssd.errors import UserError


def check_out(out: Path | None) -> None:
    """Check that a folder for results is one, or can be made.

    Raises:
        UserError: there is a file in its place, or it may not be written to.
    """
    if out is None:
        return
    path = out.absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise UserError(f"--out {out}: {there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {there} may not be written to; name another folder")
