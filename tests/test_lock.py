"""A lock names its holder, and ends with it."""

import os
import re
import sys
from pathlib import Path

import pytest
from waiting import finish, start, wait_until

from ssd.lock import LockedError, ProcessLock

HOLD = """
import sys, time
from pathlib import Path
from ssd.lock import ProcessLock
lock = ProcessLock(Path(sys.argv[1]), "train")
lock.acquire()
Path(sys.argv[1], "held").touch()
time.sleep(100_000)
"""


def test_it_is_held_once_and_names_the_holder(tmp_path: Path) -> None:
    first, second = ProcessLock(tmp_path / "new", "train"), ProcessLock(tmp_path / "new", "train")
    first.acquire()
    other = ProcessLock(tmp_path / "new", "export")
    other.acquire()
    with pytest.raises(LockedError) as caught:
        second.acquire()
    assert re.fullmatch(rf"{os.getpid()} on \S+", caught.value.holder)
    second.release()
    first.release()
    second.acquire()


def test_without_a_note_the_holder_is_unknown(tmp_path: Path) -> None:
    held = ProcessLock(tmp_path, "train")
    held.acquire()
    (tmp_path / "train.holder").unlink()
    with pytest.raises(LockedError, match="^unknown$"):
        ProcessLock(tmp_path, "train").acquire()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    process = start([sys.executable, "-c", HOLD, str(tmp_path)])
    wait_until((tmp_path / "held").exists, process)
    lock = ProcessLock(tmp_path, "train")
    with pytest.raises(LockedError, match=f"^{process.pid} on "):
        lock.acquire()
    process.kill()
    finish(process)
    lock.acquire()
