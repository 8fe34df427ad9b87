"""The watchdog warns when nothing moves, and only then. No limit here is near what a busy machine needs."""

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from ssd.watchdog import Watchdog

PATIENCE = 900.0  # seconds that a test waits for what must come


class Listener(logging.Handler):
    """Keeps the warnings, and lets a test wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.changed:
            self.records.append(record)
            self.changed.notify_all()

    def wait_for(self, where: str, number: int) -> list[float]:
        """The seconds that the first `number` warnings about `where` name."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.about(where)) >= number, PATIENCE)
            return self.about(where)[:number]

    def about(self, where: str) -> list[float]:
        return [record.args[0] for record in self.records if record.args[1] == where]


@pytest.fixture
def listener() -> Iterator[Listener]:
    handler = Listener()
    logger = logging.getLogger("ssd.watchdog")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_it_says_where_nothing_moves_again_and_again_with_the_total(listener: Listener) -> None:
    with Watchdog(0.05) as watchdog:
        watchdog.beat("epoch 3, step 120, waiting for data")
        seconds = listener.wait_for("epoch 3, step 120, waiting for data", 4)
    assert seconds == sorted(set(seconds))
    assert all(value >= 0.05 * number for number, value in enumerate(seconds, start=1))
    assert {record.levelno for record in listener.records} == {logging.WARNING}
    message = listener.records[-1].getMessage()
    assert message.startswith("no progress for ")
    assert message.endswith(" s: epoch 3, step 120, waiting for data")


def test_after_a_beat_it_counts_from_the_start(listener: Listener) -> None:
    """The next warning comes within twice the limit, where the machine does not stall just then."""
    limit, seconds = 0.2, float("inf")
    began = time.monotonic()
    while seconds >= 2 * limit and time.monotonic() - began < PATIENCE:
        listener.records.clear()
        with Watchdog(limit) as watchdog:
            watchdog.beat("first")
            listener.wait_for("first", 3)
            beaten = time.monotonic()
            watchdog.beat("second")
            (seconds,) = listener.wait_for("second", 1)
            assert limit <= seconds <= time.monotonic() - beaten
    assert seconds < 2 * limit


def test_it_counts_from_the_start_of_its_block_where_there_was_no_beat(listener: Listener) -> None:
    watchdog = Watchdog(0.05)
    time.sleep(0.2)
    entered = time.monotonic()
    with watchdog:
        (seconds,) = listener.wait_for("start", 1)
        assert seconds <= time.monotonic() - entered


def test_it_is_silent_while_there_are_beats(listener: Listener) -> None:
    """The machine may stall longer than the limit; then the attempt shows nothing and another is made."""
    limit, largest_gap = 0.2, float("inf")
    began = time.monotonic()
    while largest_gap >= limit and time.monotonic() - began < PATIENCE:
        listener.records.clear()
        largest_gap, last = 0.0, time.monotonic()
        with Watchdog(limit) as watchdog:
            for _ in range(100):
                time.sleep(0.01)
                watchdog.beat("stepping")
                largest_gap, last = max(largest_gap, time.monotonic() - last), time.monotonic()
        largest_gap = max(largest_gap, time.monotonic() - last)
    assert largest_gap < limit
    assert listener.records == []


def test_it_ends_with_its_block_at_once_and_for_good(listener: Listener) -> None:
    with pytest.raises(RuntimeError), Watchdog(3600.0):
        assert "watchdog" in [thread.name for thread in threading.enumerate()]
        raise RuntimeError
    with Watchdog(0.05):
        listener.wait_for("start", 1)
    heard = len(listener.records)
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]
    time.sleep(0.2)
    assert len(listener.records) == heard
