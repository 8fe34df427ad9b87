"""A stage ends with the DVC that started it, and with nothing else."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from default_params import REPOSITORY
from waiting import finish, start, wait_until

from stages.dvc_process import parents_below_dvc

DVC = """
import os, subprocess, sys
subprocess.run(["sh", "-c", sys.argv[1]], env={**os.environ, "DVC_STAGE": "train", "DVC_ROOT": "."})
"""

STAGE = """
import stages
import os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "early").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
from ssd.interrupt import StopSignal
from stages.dvc_process import end_with_dvc
stop = StopSignal()
stop.install()
try:
    end_with_dvc(stop)
    (folder / "at work").write_text(str(os.getpid()))
    time.sleep(100_000)
except KeyboardInterrupt:
    print("stopped")
"""

SHELLS = {"a shell that becomes it": "exec {stage}", "a shell that waits": "{stage}; true"}
"""What DVC's shell does with a command: bash and dash become it, fish waits for it."""


@pytest.fixture(params=SHELLS)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A stage, for a shell."""
    (tmp_path / "stage.py").write_text(STAGE)
    return SHELLS[request.param].format(stage=f"{sys.executable} {tmp_path}/stage.py {tmp_path}")


def start_dvc(command: str, **variables: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return start([sys.executable, "-c", DVC, command], {**kept, "PYTHONPATH": str(REPOSITORY), **variables})


@pytest.mark.parametrize("outer", [{}, {"DVC_STAGE": "outer"}], ids=["alone", "DVC inside of a stage"])
def test_a_stage_ends_with_dvc(command: str, outer: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    dvc = start_dvc(command, **outer)
    wait_until((tmp_path / "at work").exists, dvc)
    dvc.kill()
    assert finish(dvc).stdout == "stopped\n"


def test_a_stage_ends_where_dvc_has_ended_during_its_imports(command: str, tmp_path: Path) -> None:
    dvc = start_dvc(command)
    wait_until((tmp_path / "early").exists, dvc)
    dvc.kill()
    dvc.wait()
    (tmp_path / "go").touch()
    assert finish(dvc).stdout == "stopped\n"


def test_a_stage_that_was_started_by_hand_outlives_its_shell(tmp_path: Path) -> None:
    """As by nohup."""
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "go").touch()
    shell = start(
        ["sh", "-c", f"PYTHONPATH={REPOSITORY} {sys.executable} {tmp_path}/stage.py {tmp_path}; true"]
    )
    wait_until(lambda: (tmp_path / "at work").exists() and (tmp_path / "at work").read_text() != "", shell)
    stage = psutil.Process(int((tmp_path / "at work").read_text()))
    shell.kill()
    shell.wait()
    time.sleep(1)
    assert stage.status() != psutil.STATUS_ZOMBIE
    stage.terminate()
    assert finish(shell).stdout == "stopped\n"


def test_the_process_that_is_watched_is_the_first_that_dvc_did_not_start() -> None:
    assert parents_below_dvc("no such stage") == {os.getpid(): os.getppid()}
