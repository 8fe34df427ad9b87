"""Kills a training with SIGKILL, again and again at random moments, and lets the last one end.

    python kill_training.py PARAMS DATA FOLDER

A training that ends before its kill makes room for another, in FOLDER/0, FOLDER/1, ... Prints how many have
ended, and the newest checkpoint at each kill, as JSON. Each life of a training is a fork of this process,
which has imported torch and computed nothing.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import psutil
import torch
from small_training import run, trainer

from ssd.loading.tensor_file import TensorFile
from ssd.params import load_params

NEW_CHECKPOINTS = (0, 2, 1)
"""How many a training may write before each kill."""


def main() -> None:
    params, file, root = load_params(sys.argv[1]), TensorFile(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)

    def start(folder: Path) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            run(trainer(params, file), folder)
            code = 0
        except Exception:  # noqa: BLE001 (the parent looks at the exit code)
            traceback.print_exc()
        os._exit(code)

    steps: list[int] = []
    finished = 0
    while True:
        folder = root / str(finished)
        pid = start(folder)
        if len(steps) < len(NEW_CHECKPOINTS):
            # By progress, as seconds mean little on a busy machine; then anywhere in what comes next.
            seconds = wait_for_checkpoints(folder, NEW_CHECKPOINTS[len(steps)], pid)
            time.sleep(random.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            steps.append(newest(folder))
            continue
        if status != 0:
            sys.exit(os.waitstatus_to_exitcode(status))
        finished += 1
        if len(steps) == len(NEW_CHECKPOINTS):
            break
    sys.stdout.write(json.dumps({"num_finished": finished, "steps_at_kill": steps}))


def wait_for_checkpoints(folder: Path, num: int, pid: int) -> float:
    """Wait until the training has written `num` new ones, or has ended; the seconds that one took."""
    seen, started = newest(folder), time.monotonic()
    for _ in range(num):
        while newest(folder) == seen and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)
        seen = newest(folder)
    return (time.monotonic() - started) / num if num else 1.0


def newest(folder: Path) -> int:
    return max((int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.pt")), default=0)


if __name__ == "__main__":
    main()
