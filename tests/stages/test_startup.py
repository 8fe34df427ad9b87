"""A stage before its first line: Ctrl-C among the imports, which take seconds."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from default_params import REPOSITORY
from waiting import finish, start, wait_until

SLOW = """
import time
from pathlib import Path
Path("importing").touch()
time.sleep(100_000)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_among_the_imports_ends_a_stage_without_a_traceback(
    number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "stages").mkdir()
    for name in ("__init__.py", "dvc_process.py"):
        (tmp_path / "stages" / name).write_bytes((REPOSITORY / "stages" / name).read_bytes())
    (tmp_path / "ssd").symlink_to(REPOSITORY / "ssd")
    (tmp_path / "stages/train.py").write_text(SLOW)
    process = start([sys.executable, "-m", "stages.train"], folder=tmp_path)
    wait_until((tmp_path / "importing").exists, process)
    process.send_signal(number)
    ended = finish(process)
    assert (ended.code, ended.stderr) == (-number, "")


def test_a_program_that_imports_stages_keeps_its_handler_of_ctrl_c() -> None:
    code = "import signal, stages; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "True\n"
