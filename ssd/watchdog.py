"""Logs a warning when a training hangs, with the place: waiting for data, for another process, ..."""

import logging
import threading
import time
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


class Watchdog:
    """Between `__enter__` and `__exit__`, logs a warning for every `seconds` that go by without a `beat`.

    It only logs and stops nothing: a training that hangs may still recover.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        self._last = (time.monotonic(), "start")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self.beat("start")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def beat(self, where: str) -> None:
        """Record that there is progress, and what comes next. Takes less than a microsecond."""
        # One assignment is atomic: the other thread sees the old pair or the new one, without a lock.
        self._last = (time.monotonic(), where)

    @property
    def where(self) -> str:
        """What came next at the last beat."""
        return self._last[1]

    def _watch(self) -> None:
        watched, num_warnings = self._last, 0
        wait = self.seconds
        while not self._ended.wait(wait):
            # The clock is read first, so a beat in between makes the measured time shorter, never longer.
            now, last = time.monotonic(), self._last
            if last is not watched:
                watched, num_warnings = last, 0
            since, where = last
            if now - since >= (num_warnings + 1) * self.seconds:
                log.warning("no progress for %.0f s: %s", now - since, where)
                num_warnings = int((now - since) / self.seconds)
            wait = since + (num_warnings + 1) * self.seconds - now
