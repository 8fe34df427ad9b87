"""Handling of SIGTERM and Ctrl-C: deferred while a step must not be interrupted, otherwise immediate."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Turns both signals into KeyboardInterrupt or, inside `held`, into a flag to check.

    A second signal is never deferred, so that a loop that hangs can be stopped.

    Attributes:
        received: whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.received = False
        self._held = False

    def install(self) -> None:
        """Handle SIGTERM and SIGINT of this process from now on; main thread only."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer the first signal while the block runs; the block must check `received`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.received = self.received, True
        if again or not self._held:
            raise KeyboardInterrupt
