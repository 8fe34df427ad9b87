"""SIGTERM and Ctrl-C in a process: at once, later, and when something that is watched has happened."""

import signal
import sys

import pytest
from waiting import Ended, finish, start

from ssd.interrupt import POLL_SECONDS

SCRIPT = """
import os, signal, sys, time
from ssd import interrupt
from ssd.interrupt import StopSignal

stop = StopSignal()
stop.install()

def work():
    for _ in range(1000):
        time.sleep(0.05)

try:
    {body}
except KeyboardInterrupt:
    print("stopped")
"""


def run(*body: str) -> Ended:
    """Run a process with these statements, in which `stop` handles its signals."""
    return finish(start([sys.executable, "-c", SCRIPT.format(body="\n    ".join(body))]))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_at_once_or_when_the_block_looks(name: str) -> None:
    assert run(f"signal.raise_signal(signal.{name})", "work()").stdout == "stopped\n"
    held = ("with stop.held():", f"    signal.raise_signal(signal.{name})", "    print(stop.received)")
    assert run(*held).stdout == "True\n"


def test_a_second_signal_is_not_deferred() -> None:
    again = "    signal.raise_signal(signal.SIGINT)"
    assert run("with stop.held():", again, again, "    work()").stdout == "stopped\n"


def test_after_the_end_a_signal_does_what_it_did_before() -> None:
    ended = run("stop.uninstall()", "signal.raise_signal(signal.SIGTERM)", "print('never here')")
    assert ended == Ended(-signal.SIGTERM, "", "")
    ended = run("stop.uninstall()", "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")
    assert ended.stdout == "True\n"


def test_what_is_watched_stops_the_process() -> None:
    assert run("stop.send_when(lambda: True)", "work()").stdout == "stopped\n"


def test_a_process_that_is_stopping_gets_no_second_signal() -> None:
    """As when SIGTERM goes to DVC and to its stage, which saves while DVC is already gone."""
    ended = run(
        "with stop.held():",
        "    signal.raise_signal(signal.SIGTERM)",
        "    stop.send_when(lambda: True)",
        f"    time.sleep({5 * POLL_SECONDS})",
        "print('saved')",
    )
    assert ended.stdout == "saved\n"


def test_a_process_that_does_not_stop_is_killed() -> None:
    ended = run(
        "interrupt.GRACE_SECONDS = 0.1",
        "with stop.held():",
        "    stop.send_when(lambda: True)",
        "    work()",
    )
    assert ended.code == -signal.SIGKILL
