"""SIGTERM and Ctrl-C: held back while a step must not be cut in two, else at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Turns both signals into KeyboardInterrupt, or, within `held`, into a flag to look at.

    A second signal is never held back: a loop that hangs can be ended.

    Attributes:
        received: whether a signal came.
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
        """Only note a first signal while the block runs; the block looks at `received`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.received = self.received, True
        if again or not self._held:
            raise KeyboardInterrupt
