"""What a stage logs to MLflow: sent at once, or kept while MLflow fails, and sent at the next chance.

A failure of MLflow never stops a stage, nor holds it up for long: one warning, and one more of what is
missing in the end. The same numbers are on disk.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssd.tracking.client import reason, refused

log = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
"""From a failure to the next attempt, at least."""

HELD_UP = 0.05
"""Fraction of a stage's time that attempts may take while MLflow fails."""


@dataclass(frozen=True)
class Entry:
    """Something to log.

    what: "metrics", for messages; send: logs it, or raises what MLflow raises.
    """

    what: str
    send: Callable[[], None]


class Outbox:
    """Entries that are sent in the order in which they were added.

    Args:
        uri: of the server, for messages; empty for the store in the workspace.
        open_run: opens the run that all entries go to, and returns those that come first; called until it
            succeeds.

    Attributes:
        failing: whether the last attempt failed.
    """

    def __init__(self, uri: str, open_run: Callable[[], Sequence[Entry]]) -> None:
        self.uri = uri
        self._open_run = open_run
        self._is_open = False
        self._entries: deque[Entry] = deque()
        self._lost: Counter[str] = Counter()
        self._retry_at = 0.0
        self.failing = False

    @property
    def all_sent(self) -> bool:
        """Whether MLflow has all that was added."""
        return not self._entries and not self._lost

    def add(self, what: str, send: Callable[[], None]) -> None:
        """Send an entry, after those that wait; it waits, too, where MLflow failed a moment ago."""
        self._entries.append(Entry(what, send))
        if time.monotonic() >= self._retry_at:
            self.send()

    def close(self, *, in_haste: bool) -> None:
        """Say what is missing, after one more attempt to send what waits, unless it is in haste."""
        if self._entries and not in_haste:
            self.send()
        missing = self._lost + Counter(entry.what for entry in self._entries)
        self._entries.clear()
        if missing:
            named = ", ".join(f"{what} ({count})" for what, count in missing.items())
            log.warning("MLflow misses of this stage: %s; its numbers are in reports/", named)

    def send(self) -> None:
        """Open the run, unless it is open, and send what waits, up to the first failure."""
        num_waiting = len(self._entries)
        if not self._is_open:
            self._is_open = self._attempt("opening the run", self._open)
        while self._is_open and self._entries:
            if not self._attempt(f"logging {self._entries[0].what}", self._send_first):
                return
        if self.failing and self._is_open:
            self.failing = False
            log.info("MLflow works again; sent what waited (%d)", num_waiting)

    def _open(self) -> None:
        self._entries.extendleft(reversed(self._open_run()))

    def _send_first(self) -> None:
        """Send the entry that is next; one that MLflow will never take is dropped."""
        entry = self._entries[0]
        try:
            entry.send()
        except Exception as error:
            if not refused(error):
                raise
            if not self._lost:
                log.warning("MLflow refuses %s (%s)", entry.what, reason(error, self.uri))
            self._lost[entry.what] += 1
        self._entries.popleft()

    def _attempt(self, doing: str, send: Callable[[], None]) -> bool:
        """Whether it succeeded. The first failure of several is told."""
        started = time.monotonic()
        try:
            send()
        except Exception as error:  # noqa: BLE001 (whatever a database, a disk or a server raises)
            now = time.monotonic()
            self._retry_at = now + max(RETRY_SECONDS, (now - started) / HELD_UP)
            if not self.failing:
                self.failing = True
                log.warning(
                    "MLflow failed while %s (%s); it is tried again, the same numbers are in reports/",
                    doing,
                    reason(error, self.uri),
                )
            return False
        return True
