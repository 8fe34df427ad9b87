"""A tracker that fails never stops or holds up the work, and says so in one line."""

import errno
import logging
import resource
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow.environment_variables as mlflow_settings
import pytest
from mlflow.tracking import MlflowClient

from ssd.params import Params, TrackingParams
from ssd.tracking import client, disk
from ssd.tracking.run import tracked_run

LINE = "MLflow failed while {} ({}); this stage logs nothing more there, its numbers are in reports/"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """All that was written to the terminal or would be, by whatever package; one item a line."""

    def lines() -> list[str]:
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        caplog.clear()
        return [line for text in (*warnings, *capfd.readouterr()) for line in text.splitlines()]

    return lines


def work(settings: TrackingParams, root: Path, during: Callable[[], None] = lambda: None) -> None:
    """A stage that logs of everything."""
    with tracked_run(settings, root, "train", name="x", stage_params={"train.lr": 0.1}) as run:
        during()
        run.metrics({"loss": 1.0}, step=0)
        run.tags({"some": "tag"})
        run.params({"some": "param"})
        run.table({"a": [1]}, "a.json")


def damage_header(database: Path) -> None:
    database.write_bytes(b"no database at all" * 1000)


def damage_pages(database: Path) -> None:
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def make_folder(database: Path) -> None:
    database.unlink()
    database.mkdir()


def make_newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of a later year'")
        connection.commit()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_header, "mlflow/mlflow.db: file is not a database; move it away, and a new one is made"),
        (damage_pages, "database disk image is malformed"),
        (make_folder, "mlflow/mlflow.db: unable to open database file"),
        (make_newer, "Detected out-of-date database schema (found version of a later year, but expected"),
    ],
)
def test_a_store_that_does_not_open_is_one_line(
    settings: TrackingParams,
    root: Path,
    said: Callable[[], list[str]],
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    damage(root / "mlflow" / "mlflow.db")
    work(settings, root)
    (line,) = said()
    assert line.startswith("MLflow failed while opening the run (")
    assert reason in line


def test_a_store_that_another_process_keeps_locked_is_one_line(
    settings: TrackingParams,
    root: Path,
    said: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disk, "PATIENCE", 0.01)
    database = root / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        work(settings, root)
    assert said() == [LINE.format("opening the run", f"{database}: database is locked")]
    with disk.locked_store(root):
        work(settings, root)
    (line,) = said()
    assert str(root / "mlflow" / ".lock") in line


def test_a_disk_that_becomes_full_is_one_line(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        size = (root / "mlflow" / "mlflow.db").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))

    try:
        work(settings, root, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said() == [LINE.format("logging metrics", "disk I/O error")]


@contextmanager
def silent_server() -> Iterator[str]:
    """Host and port of a server that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("hangs", [False, True])
def test_a_server_that_is_down_or_hangs_is_one_line(
    make_params: Callable[..., Params],
    tmp_path: Path,
    said: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    hangs: bool,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with silent_server() as address:
        server = address if hangs else "127.0.0.1:9"
        work(make_params(**{"tracking.uri": f"http://me:secret@{server}"}).tracking, tmp_path)
    why = "timed out" if hangs else f"[Errno {errno.ECONNREFUSED}] Connection refused"
    assert said() == [LINE.format("opening the run", f"{server}: {why}")]


def test_a_hanging_server_holds_a_stage_up_for_two_minutes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TIMEOUT", "MAX_RETRIES", "BACKOFF_FACTOR"):
        monkeypatch.delenv(f"MLFLOW_HTTP_REQUEST_{name}", raising=False)
    client.mlflow.cache_clear()
    client.mlflow()
    timeout = mlflow_settings.MLFLOW_HTTP_REQUEST_TIMEOUT.get()
    retries = mlflow_settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()
    pauses = sum(mlflow_settings.MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get() * 2**n for n in range(1, retries))
    assert (retries + 1) * timeout + pauses <= 120


def test_a_run_that_cannot_be_closed_is_one_line(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("gone\nand more")

    with tracked_run(settings, root, "train", name="x", stage_params={}):
        monkeypatch.setattr(MlflowClient, "set_terminated", refuse)
    assert said() == [LINE.format("closing the run", "gone")]


def test_after_a_failure_nothing_more_is_tried_and_the_run_is_closed(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("mlflow.log_metrics", refuse)
    work(settings, root)
    assert said() == [LINE.format("logging metrics", "no space left")]
    (run,) = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db").search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert "some" not in run.data.tags


def test_without_mlflow_the_work_goes_on(
    settings: TrackingParams, tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    client.mlflow.cache_clear()
    work(settings, tmp_path)
    (line,) = said()
    assert line.startswith("MLflow failed while opening the run (import of mlflow halted")
