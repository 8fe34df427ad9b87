"""Servers on 127.0.0.1: started, awaited, killed at the end with all that they started."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GRPC = 10_000
"""SeaweedFS listens on each of its ports and on this much more."""


class Server:
    """A process that leads a session of its own; what it prints is added to a file.

    Args:
        command: of the server; the first word is a path.
        environment: all variables.
        log: what it prints.
        ready: whether it serves.
        user: who runs it; None is who runs this.
        folder: where it runs.

    Raises:
        AssertionError: it has ended before it was ready, with the end of what it printed.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        ready: Callable[[], bool],
        user: str | None = None,
        folder: Path = Path("/"),
    ) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        try:
            while not ready():
                assert self.process.poll() is None, f"{command[0]}: {log.read_text()[-3000:]}"
                time.sleep(0.1)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL to it and to all processes of its session; return when it has ended."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()


def free_port() -> int:
    """A port below those of outgoing connections; it is free now, and that of SeaweedFS's gRPC is, too."""
    for port in range(20_000 + os.getpid() % 1000, 32_000):
        if _is_free(port) and _is_free(port + GRPC) and port not in _given:
            _given.add(port)
            return port
    raise AssertionError("no free port")


_given: set[int] = set()


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
