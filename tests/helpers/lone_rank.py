"""One of several processes under the launcher that joins no process group: without torch, it starts at once.

    python lone_rank.py ACTION FOLDER

FOLDER gets a note of each process: RANK-PID.txt.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ssd.errors import LostProcessError, UserError
from ssd.interrupt import StopSignal
from ssd.processes.child import ERRORS, end_with_launcher, report_errors

RANK = int(os.environ["RANK"])


def mistake(note: Path) -> None:
    if RANK == 1:
        raise UserError("too large", key="train.lr")
    lose_the_other()


def no_answer(note: Path) -> None:
    if RANK == 1:
        raise LostProcessError("no answer")
    lose_the_other()


def lose_the_other() -> None:
    """Fail as an exchange does, once rank 1 has failed."""
    while not Path(os.environ[ERRORS], "1.json").exists():
        time.sleep(0.01)
    raise LostProcessError("the other has ended")


def lost_once(note: Path) -> None:
    """When both have started for the first time, rank 1 dies."""
    if len(list(note.parent.glob(f"{RANK}-*"))) > 1:
        return
    while not list(note.parent.glob("0-*")):
        time.sleep(0.01)
    if RANK == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10_000)


def work(note: Path) -> None:
    """Note how many signals come until a checkpoint is written, after the first."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    note.write_text("at work")
    while not signals:
        time.sleep(0.05)
    time.sleep(1)  # writing it
    note.write_text("stopped once" if len(signals) == 1 else f"stopped by {signals}")
    raise KeyboardInterrupt


ACTIONS: dict[str, Callable[[Path], None]] = {
    "mistake": mistake,
    "no_answer": no_answer,
    "lost_once": lost_once,
    "work": work,
}

if __name__ == "__main__":
    action, folder = sys.argv[1:]
    note = Path(folder, f"{RANK}-{os.getpid()}.txt")
    end_with_launcher(StopSignal())
    try:
        with report_errors():
            note.touch()
            ACTIONS[action](note)
    except KeyboardInterrupt:
        sys.exit(130)
