"""The DVC process that started a stage: when it ends, even by SIGKILL, the stage ends, too.

SIGTERM, the out-of-memory killer and `dvc queue kill --force` end DVC alone. Its stage would go on, and write
beside that of the next `dvc repro`. Of a stage that is started in another way, from a shell, by nohup or
torchrun, nothing is watched.
"""

import os

import psutil

from ssd.interrupt import StopSignal
from ssd.processes.child import LAUNCHER

STAGE = "DVC_STAGE"
"""The environment variable in which DVC names the stage; all processes between DVC and the stage have it."""


def end_with_dvc(stop: StopSignal) -> None:
    """Stop when the DVC process that started this one has ended; see `StopSignal.send_when`."""
    if PARENTS:
        stop.send_when(lambda: any(_parent(pid) != parent for pid, parent in PARENTS.items()))


def parents_below_dvc(stage: str) -> dict[int, int]:
    """The parent of this process and of each shell (or launcher) between it and DVC, by process id.

    When DVC has ended, the process that it has started has another parent: init, or a subreaper.

    Args:
        stage: its name, as DVC names it.
    """
    pid, parents = os.getpid(), dict[int, int]()
    while pid not in parents:
        parents[pid] = _parent(pid)
        if _is_between(parents[pid], stage):
            pid = parents[pid]
    return parents


def _is_between(pid: int, stage: str) -> bool:
    """Whether a process has been started by DVC for this stage, rather than being DVC."""
    try:
        return bool(psutil.Process(pid).environ().get(STAGE) == stage)
    except psutil.Error:  # it has ended, or belongs to another user, as neither shell nor launcher do
        return False


def _parent(pid: int) -> int:
    """The process id of a process's parent; 0 where the process has ended."""
    if pid == os.getpid():
        return os.getppid()
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return 0


# Under `ssd.processes.launch` only the launcher watches DVC, and the processes of the training watch it.
PARENTS = parents_below_dvc(os.environ[STAGE]) if STAGE in os.environ and LAUNCHER not in os.environ else {}
"""What `parents_below_dvc` said at the start of this process; empty where DVC has not started it."""
