"""Working through items in several processes."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from waiting import finish, start, wait_until

from ssd.errors import UserError
from ssd.parallel import num_cores, ordered_map

ITEMS = list(range(32))  # two tasks
SEARCH_PATH = os.pathsep.join([*map(str, Path(__file__).parents[:2]), str(Path(__file__).parent / "helpers")])


def square(item: int) -> int:
    return item * item


def process_id(item: int) -> int:
    return os.getpid()


def refuse_20(item: int) -> int:
    if item == 20:
        raise ValueError("20 is refused")
    return item


def be_killed_at_20(item: int) -> int:
    if item == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def work_until_told(folder: Path, item: int) -> None:
    (folder / str(os.getpid())).touch()
    while not (folder / "enough").exists():
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(ordered_map(square, ITEMS, workers, "squares")) == [square(item) for item in ITEMS]


def test_one_worker_is_this_process_and_two_are_others() -> None:
    assert set(ordered_map(process_id, ITEMS, 1, "ids")) == {os.getpid()}
    assert os.getpid() not in set(ordered_map(process_id, ITEMS, 2, "ids"))


def test_nothing_to_do() -> None:
    assert list(ordered_map(square, [], 0, "squares")) == []


def test_a_killed_process_is_an_error_that_says_so() -> None:
    with pytest.raises(UserError, match=r"squares: one of 2 worker processes was killed.*with fewer"):
        list(ordered_map(be_killed_at_20, ITEMS, 2, "squares"))


def test_ctrl_c_to_all_is_one_traceback_and_leaves_no_worker(tmp_path: Path) -> None:
    """Of the process that the user has started; the workers say nothing."""
    process = start_map(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    (tmp_path / "enough").touch()
    ended = finish(process)
    assert ended.stderr.count("Traceback") == 1
    assert ended.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_workers_end_with_a_killed_process(tmp_path: Path) -> None:
    process = start_map(tmp_path)
    process.kill()
    assert "Traceback" not in finish(process).stderr  # when the last process has closed its output


def start_map(folder: Path) -> subprocess.Popen[str]:
    """A process that leads a group, with two workers at work."""
    process = start([sys.executable, __file__, str(folder)], {**os.environ, "PYTHONPATH": SEARCH_PATH})
    wait_until(lambda: len(list(folder.iterdir())) == 2, process)
    return process


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="20 is refused"):
        list(ordered_map(refuse_20, ITEMS, workers, "items"))


def test_there_is_a_core_to_work_on() -> None:
    assert num_cores() >= 1


def test_worker_processes_start_without_torch() -> None:
    code = "import sys, ssd.prepare.preprocess, ssd.tensor_writer; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


if __name__ == "__main__":
    list(ordered_map(partial(work_until_told, Path(sys.argv[1])), ITEMS, 2, "waiting"))
