"""Two processes that meet as those of a Kubeflow PyTorchJob do: by four variables, without LOCAL_RANK."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from waiting import Ended, finish, start

REPOSITORY = Path(__file__).parents[2]
HELPERS = Path(__file__).parent
SIZE = 2


def run_ranks(script: str, *arguments: object) -> list[Ended]:
    """Run `python script *arguments` as each rank, to the end; no process is left behind."""
    port = free_port()
    processes = [start_rank(rank, port, script, *arguments) for rank in range(SIZE)]
    try:
        return [finish(process) for process in processes]
    finally:
        for process in processes:
            process.kill()


def start_rank(rank: int, port: str, script: str, *arguments: object) -> subprocess.Popen[str]:
    """Start one of the ranks, which are to meet at `port`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(HELPERS), os.environ.get("PYTHONPATH", "")]),
        "PYTHONUNBUFFERED": "",  # or a script that forgets to flush would not be noticed
        "OMP_NUM_THREADS": "1",
        "RANK": str(rank),
        "WORLD_SIZE": str(SIZE),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    command = [sys.executable, script, *map(str, arguments)]
    return start(command, environment)


def free_port() -> str:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])
