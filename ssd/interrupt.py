"""Handling of SIGTERM and Ctrl-C: deferred while a step must not be interrupted, otherwise immediate.

Both may go to a whole process group. Worker processes leave them to the process that started them, and end
with it.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE_SECONDS = 120
"""The time that a process has to save and exit after a signal, before it is killed."""

POLL_SECONDS = 0.2
"""The time between two looks at a process whose end is waited for."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Turns both signals into KeyboardInterrupt or, inside `held`, into a flag to check.

    A second signal is never deferred, so that a loop that hangs can be stopped.

    Attributes:
        received: whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.received = False
        self._held = False
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Handle SIGTERM and SIGINT of this process from now on; main thread only."""
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._handle)

    def uninstall(self) -> None:
        """Let both signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer the first signal while the block runs; the block must check `received`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def send_when(self, condition: Callable[[], bool]) -> None:
        """In the background, wait for a condition; then send this process SIGTERM, and SIGKILL after a grace.

        No SIGTERM is sent where a signal has arrived before: a second one would interrupt what the first one
        began.
        """
        threading.Thread(target=self._send_when, args=[condition], daemon=True).start()

    def _send_when(self, condition: Callable[[], bool]) -> None:
        while not condition():
            time.sleep(POLL_SECONDS)
        # A signal that has arrived, but not yet in Python, becomes one with this one.
        if not self.received:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.received = self.received, True
        if again or not self._held:
            raise KeyboardInterrupt


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block both signals in the block, also in the processes that are started in it; see `become_worker`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def become_worker() -> None:
    """For a worker process of multiprocessing: leave the process group, and end with the parent, however.

    A parent that first saves, or unwinds, still needs its workers; and what they would print of Ctrl-C is no
    news. A parent that is killed cannot end them.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only worker processes come here"
    parent.join()
    os._exit(1)
