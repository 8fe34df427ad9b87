"""Experiments that run at the same time: started one after the other, stopped together.

DVC prepares an experiment in the workspace itself: it stashes what is not committed, writes params, and takes
that back. Two that prepare at once mix up their params, and one that is killed there leaves the workspace
changed. So the next one starts when the copy of the last one is there, and none is interrupted before.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ssd.interrupt import GRACE_SECONDS
from stages.experiment import Experiment, Ways, has_begun, is_alive, remove_copy, send, start

PAUSE = 0.5
"""Seconds between two looks."""


@dataclass
class Pool:
    """Experiments that run.

    size: how many may; ways: to run them; variables: of their environment; pause: seconds between two looks
    at them; running: by name.
    """

    size: int
    ways: Ways
    variables: Callable[[], Mapping[str, str]]
    pause: float
    running: dict[str, Experiment] = field(default_factory=dict)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stopped: dict[str, float] = field(default_factory=dict)

    def has_room(self) -> bool:
        """Whether another one may start now."""
        return len(self.running) < self.size and all(map(has_begun, self.running.values()))

    def start(self, experiment: Experiment) -> None:
        """Start it, or take it over if an earlier process has started it and it still runs."""
        if not is_alive(experiment):
            remove_copy(experiment.name)
            command = self.ways.command(experiment)
            self._processes[experiment.name] = start(experiment, command, self.variables())
        self.running[experiment.name] = experiment

    def interrupt(self, name: str) -> None:
        """Let it save and end, as Ctrl-C does: DVC deletes the copy, and keeps no result.

        One that prepares goes on until it has; one that does not end is killed after a grace. To be called
        again until it has ended.
        """
        experiment, now = self.running[name], time.monotonic()
        if not has_begun(experiment):
            return
        if name not in self._stopped:
            self._stopped[name] = now
            send(experiment, signal.SIGINT)
        elif now - self._stopped[name] > GRACE_SECONDS:
            send(experiment, signal.SIGKILL)

    def ended(self) -> list[Experiment]:
        """Those that have ended since the last call, well or not; they are no longer among the running."""
        found = [experiment for experiment in self.running.values() if not is_alive(experiment)]
        for experiment in found:
            del self.running[experiment.name]
            self._stopped.pop(experiment.name, None)
            if process := self._processes.pop(experiment.name, None):
                process.wait()
            if self.ways.find(experiment.name) is None:
                remove_copy(experiment.name)
        return found

    def stop(self) -> None:
        """End all that run, and wait for it."""
        while self.running:
            for name in self.running:
                self.interrupt(name)
            self.ended()
            time.sleep(self.pause)
