"""DVC's file of locks. A DVC that is killed while it writes it leaves a half, and no DVC runs any more."""

import json
from pathlib import Path

FOLDER = Path(".dvc/tmp")


def mend_dvc_lock(folder: Path = FOLDER) -> bool:
    """Delete the file if it is cut off; whether it was.

    DVC writes it under a lock, which this takes, so it is not one that is being written. What the file named
    is lost: who still runs a stage here is told by `stages.only_one`.

    Args:
        folder: of DVC's temporary files.
    """
    if not _is_cut_off(folder):
        return False
    from dvc.lock import LockError, make_lock

    try:
        with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
            if cut_off := _is_cut_off(folder):
                (folder / "rwlock").unlink()
            return cut_off
    except LockError:
        return False


def _is_cut_off(folder: Path) -> bool:
    try:
        json.loads((folder / "rwlock").read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False
