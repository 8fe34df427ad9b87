"""Several processes under the launcher: they start, fail, start again and stop together.

As a script, this is one of the processes, in their group; with "launch" first, it is what a user starts.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from ranks import HELPERS
from waiting import finish, start, wait_until

from ssd.errors import UserError
from ssd.processes.launch import STOPPED, launch, num_processes
from ssd.processes.world import World, exit_now, joined_world

REPOSITORY = Path(__file__).parents[2]
LONE = str(HELPERS / "lone_rank.py")
CUDA = torch.device("cuda")
SIGKILL = signal.SIGKILL.value
RANK = "int(os.environ['RANK'])"
"""For one-line processes."""


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join([str(REPOSITORY), str(HELPERS), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


pytestmark = pytest.mark.usefixtures("importable")


def test_a_process_for_each_gpu_or_one_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert num_processes("auto", CUDA) == 4
    assert num_processes(3, CUDA) == 3
    assert num_processes("auto", torch.device("cpu")) == 1
    assert num_processes(6, torch.device("cpu")) == 6


def test_more_processes_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = "^train.devices: found 3, but torch sees 2 GPUs; allowed here: auto, 1 to 2$"
    with pytest.raises(UserError, match=message):
        num_processes(3, CUDA)


@pytest.mark.slow
def test_gloo_listens_on_the_loopback_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the host's name resolves to. (torch's store of addresses listens everywhere.)"""
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert launch([__file__, "listen", str(tmp_path)], 2, restarts=0) == 0
    written = [path.read_text() for path in tmp_path.iterdir()]
    assert written == ["lo ['127.0.0.1']"] * 2


@pytest.mark.slow
def test_a_mistake_that_one_process_finds_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The other waits for it, and fails too when it is gone. A restart would not help."""
    with pytest.raises(UserError, match=r"^train.lr: too large$"):
        launch([LONE, "mistake", str(tmp_path)], 2, restarts=1)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""
    assert len(list(tmp_path.iterdir())) == 2, "each process started once"


@pytest.mark.slow
def test_a_bug_shows_the_traceback_of_the_process_that_has_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert launch([__file__, "bug", str(tmp_path)], 2, restarts=0) == 1
    assert caplog.text.count("Traceback") == 1
    assert "process 1 of 2 failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_process_without_answer_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Its code is not that of a UserError, after which nothing is started again."""
    assert launch([LONE, "no_answer", str(tmp_path)], 2, restarts=0) == 1
    assert caplog.messages == ["no answer"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_lost_processes_are_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert launch([LONE, "lost_once", str(tmp_path)], 2, restarts=1) == 0
    assert caplog.messages == [
        "process 1 of 2 was killed (SIGKILL)",
        "restarting from the last checkpoint (1 of 1)",
    ]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_lost_process_ends_the_others() -> None:
    script = f"import os, time; os.kill(os.getpid(), {SIGKILL}) if {RANK} else time.sleep(1000)"
    assert launch(["-c", script], 2, restarts=0) == 128 + SIGKILL


def test_what_a_process_says_before_it_joins_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    script = f"import os, sys; sys.exit('no such module') if {RANK} else None"
    assert launch(["-c", script], 2, restarts=0) == 1
    assert caplog.messages == ["no such module\nprocess 1 of 2 ended with exit code 1"]


@pytest.mark.parametrize("chosen", [None, "3"])
def test_processes_share_the_cores(
    chosen: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    note = f"open({str(tmp_path)!r} + '/' + os.environ['RANK'], 'w').write(os.environ['OMP_NUM_THREADS'])"
    assert launch(["-c", f"import os; {note}"], 2, restarts=0) == 0
    assert [path.read_text() for path in tmp_path.iterdir()] == [chosen or "4"] * 2
    assert os.environ.get("OMP_NUM_THREADS") == chosen


@pytest.mark.slow
def test_a_signal_reaches_every_process_once_and_is_waited_for(tmp_path: Path) -> None:
    parent = start_launcher(tmp_path, LONE, "work")
    # As Ctrl-C does: to all that share the terminal.
    os.killpg(parent.pid, signal.SIGTERM)
    assert finish(parent).code == STOPPED
    assert [path.read_text() for path in tmp_path.iterdir()] == ["stopped once"] * 2


@pytest.mark.slow
def test_nobody_trains_on_without_the_launcher(tmp_path: Path) -> None:
    parent = start_launcher(tmp_path, LONE, "work")
    parent.kill()
    finish(parent)  # when the last process has closed its output
    assert [path.read_text() for path in tmp_path.iterdir()] == ["stopped once"] * 2


@pytest.mark.slow
def test_a_process_that_loses_a_stopped_partner_is_stopped_too(tmp_path: Path) -> None:
    """One leaves before it holds signals back, the other is in the middle of a step."""
    parent = start_launcher(tmp_path, __file__, "in_a_step")
    parent.send_signal(signal.SIGTERM)
    ended = finish(parent)
    assert ended.code == STOPPED
    (line,) = ended.stderr.splitlines()
    assert line.startswith(
        "WARNING:ssd.processes.launch:process 0 of 2 was in a step when the others stopped"
    )


def start_launcher(folder: Path, script: str, action: str) -> subprocess.Popen[str]:
    """The launcher in a terminal of its own, with two processes that are at work."""
    command = [sys.executable, __file__, "launch", script, action, str(folder)]
    parent = start(command)
    wait_until(lambda: [path.read_text() for path in folder.iterdir()] == ["at work"] * 2, parent)
    return parent


def bug(world: World, note: Path) -> None:
    if world.rank == 1:
        raise ZeroDivisionError
    world.barrier()


def in_a_step(world: World, note: Path) -> None:
    if world.rank == 0:
        signal.signal(signal.SIGTERM, lambda *_: None)
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    note.write_text("at work")
    if world.rank == 1:
        time.sleep(10_000)
    world.barrier()


def listen(world: World, note: Path) -> None:
    store = int(os.environ["MASTER_PORT"])
    found = psutil.Process().net_connections(kind="tcp")
    places = {open.laddr for open in found if open.status == psutil.CONN_LISTEN and open.laddr.port != store}
    assert places, "gloo listens somewhere"
    note.write_text(f"{os.environ['GLOO_SOCKET_IFNAME']} {sorted({place.ip for place in places})}")
    world.barrier()


def run_process(action: str, folder: str) -> None:
    with joined_world("cpu") as world:
        note = Path(folder, f"{os.getpid()}.txt")
        note.touch()
        world.barrier()
        actions: dict[str, Callable[[World, Path], None]] = {
            "bug": bug,
            "in_a_step": in_a_step,
            "listen": listen,
        }
        actions[action](world, note)
    exit_now(0)


if __name__ == "__main__":
    logging.basicConfig()
    try:
        if sys.argv[1] == "launch":
            sys.exit(launch(sys.argv[2:], 2, restarts=1))
        run_process(*sys.argv[1:])
    except KeyboardInterrupt:
        exit_now(STOPPED)
