"""Runs of processes that were killed are closed by the next one; runs of living processes never."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from ssd.params import TrackingParams
from ssd.tracking import writers
from ssd.tracking.client import WRITER_TAG
from ssd.tracking.run import tracked_run
from ssd.tracking.writers import Writer, dead_writers

REPOSITORY = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]

WRITE = """
import sys
from pathlib import Path
from ssd.tracking.writers import Writer

writer = Writer(Path(sys.argv[1]), "store")
print(writer.name, flush=True)
sys.stdin.read()
"""

TRACK = """
import sys
from pathlib import Path
from ssd.params import TrackingParams
from ssd.tracking.run import tracked_run

settings = TrackingParams(enabled=True, experiment="ssd", run_name="", system_metrics=False, uri="")
with tracked_run(settings, Path(sys.argv[1]), "train", name="x", stage_params={}) as run:
    print(run.id, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """start(code, argument): another process; it has printed a line when this returns, and then waits."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, argument: Path) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", code, str(argument)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def names(folder: Path, store: str = "store") -> list[str]:
    return [dead.name for dead in dead_writers(folder, store)]


def test_a_killed_process_is_dead_once_and_a_living_one_is_not(tmp_path: Path, start: Start) -> None:
    process, name = start(WRITE, tmp_path)
    living = Writer(tmp_path, "store")
    assert names(tmp_path) == []
    process.kill()
    process.wait()
    assert names(tmp_path, "another") == []
    assert names(tmp_path) == [name]
    assert names(tmp_path) == [], "it is forgotten"
    living.gone()
    assert list(tmp_path.iterdir()) == []


def left(folder: Path, boot_id: str, host: str) -> str:
    """A file without a lock, as a process leaves that was killed on some machine."""
    name = f"store.{'0' * 32}.{boot_id}.{host}"
    (folder / name).touch()
    return name


def test_a_machine_is_known_by_its_kernel_or_its_name(tmp_path: Path) -> None:
    here = socket.gethostname()
    restarted = left(tmp_path, "an-earlier-boot", here)
    left(tmp_path, "another-boot", "another.machine")
    left(tmp_path, "", "another.machine")
    assert names(tmp_path) == [restarted]
    if boot_id := writers._boot_id():
        assert names(tmp_path) == []
        assert left(tmp_path, boot_id, "container") in names(tmp_path)


def test_a_process_was_last_seen_when_it_said_so(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "store")
    os.utime(tmp_path / writer.name, (0, 0))
    writer.alive()
    assert (tmp_path / writer.name).stat().st_mtime > 1e9
    dead = tmp_path / left(tmp_path, "an-earlier-boot", socket.gethostname())
    os.utime(dead, (1000, 1000))
    assert [dead.last_seen for dead in dead_writers(tmp_path, "store")] == [1000]


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert names(tmp_path / "missing") == []


def test_the_run_of_a_killed_process_is_closed_by_the_next_and_that_of_a_living_one_is_not(
    settings: TrackingParams, root: Path, start: Start
) -> None:
    client = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db")

    def another_run() -> None:
        with tracked_run(settings, root, "train", name="x", stage_params={}) as run:
            assert run.id

    process, run_id = start(TRACK, root)
    another_run()
    assert client.get_run(run_id).info.status == "RUNNING"
    process.kill()
    process.wait()
    another_run()
    info = client.get_run(run_id).info
    assert info.status == "KILLED"
    assert info.start_time <= info.end_time < time.time() * 1000
    assert [run.info.status for run in client.search_runs(["1"])].count("FINISHED") == 2
    assert list((root / "mlflow" / "writers").iterdir()) == []


def test_a_killed_run_that_was_closed_meanwhile_is_continued(
    settings: TrackingParams, root: Path, start: Start
) -> None:
    """The writer of a resumed run is the process that resumes it."""
    with tracked_run(settings, root, "train", name="x", stage_params={}) as first:
        pass
    with tracked_run(settings, root, "train", name="x", stage_params={}, resume=first.id) as again:
        assert again.writer is not None
        tags = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db").get_run(first.id).data.tags
        assert tags[WRITER_TAG] == again.writer.name
        assert (root / "mlflow" / "writers" / tags[WRITER_TAG]).exists()
