"""Two machines on this one: network namespaces with addresses, names and files of their own, and a cable."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'
"""In mount and UTS namespaces: the machine's name, and those that it knows; then the command."""


class Machine:
    """One that runs one command at a time, and can be killed and cut off. Needs root.

    Attributes:
        number: from 1.
        name, address: its own; the others know them.
        folder: where commands run; machines share no files there.
        printed: the lines of all commands, with their times by the monotonic clock.
    """

    def __init__(self, number: int, folder: Path, hosts: Path) -> None:
        self.number, self.name, self.address = number, f"node{number}", f"10.77.0.{number}"
        self.folder, self.hosts = folder, hosts
        self.printed: list[tuple[float, str]] = []
        self._space = f"ssd-{os.getpid()}-{number}"
        self.cable = f"ssd{number}"
        ip("netns", "add", self._space)

    def plug_in(self) -> None:
        """Configure its network, once it has a cable."""
        ip("-n", self._space, "address", "add", f"{self.address}/24", "dev", self.cable)
        ip("-n", self._space, "link", "set", "lo", "up")
        self.connect()

    def connect(self) -> None:
        """Let its cable carry data."""
        ip("-n", self._space, "link", "set", self.cable, "up")

    def cut_off(self) -> None:
        """Let its cable carry no data: nobody is told."""
        ip("-n", self._space, "link", "set", self.cable, "down")

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a command in its folder."""
        space = ["ip", "netns", "exec", self._space, "unshare", "--uts", "sh", "-c", START, "sh"]
        self.process = subprocess.Popen(
            [*space, str(self.hosts), self.name, *command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=[self.process])
        self._reader.start()

    def wait(self, seconds: float) -> int:
        """The exit code of the command; its lines have been read.

        Raises:
            subprocess.TimeoutExpired: it runs for longer.
        """
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code

    def kill(self) -> None:
        """SIGKILL to all of its processes; a machine that is not cut off still closes their connections."""
        while pids := ip("netns", "pids", self._space).split():
            for pid in map(int, pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if hasattr(self, "process"):
                self.process.wait()
            time.sleep(0.05)

    def when(self, pattern: str, after: float) -> float | None:
        """When it first printed a line with this pattern, later than `after`; None if it has not."""
        return next((at for at, line in list(self.printed) if at > after and re.search(pattern, line)), None)

    def remove(self) -> None:
        """Kill all of it."""
        self.kill()
        ip("netns", "delete", self._space)

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            self.printed.append((time.monotonic(), line.rstrip("\n")))


@contextmanager
def two_machines(folders: tuple[Path, Path]) -> Iterator[tuple[Machine, Machine]]:
    """Machines that run in these folders, joined by a cable; removed at the end, with what still runs."""
    with tempfile.NamedTemporaryFile("w") as hosts:
        machines: list[Machine] = []
        try:
            for number, folder in enumerate(folders, 1):
                machines.append(Machine(number, folder, Path(hosts.name)))
            first, second = machines
            hosts.write("127.0.0.1 localhost\n" + "".join(f"{m.address} {m.name}\n" for m in machines))
            hosts.flush()
            ends = [["name", machine.cable, "netns", machine._space] for machine in machines]
            ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
            for machine in machines:
                machine.plug_in()
            yield first, second
        finally:
            for machine in machines:
                machine.remove()


def ip(*arguments: str) -> str:
    """What iproute2's `ip` prints."""
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout
