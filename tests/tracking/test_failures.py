"""A tracker that fails never stops or holds up the work, and says so in one line."""

import errno
import logging
import resource
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import Mock

import mlflow.environment_variables as mlflow_settings
import pytest
from mlflow.tracking import MlflowClient

from ssd.params import Params, TrackingParams
from ssd.tracking import client, disk, outbox
from ssd.tracking.outbox import Outbox
from ssd.tracking.run import tracked_run

LINE = "MLflow failed while {} ({}); it is tried again, the same numbers are in reports/"
MISSING = "MLflow misses of this stage: {}; its numbers are in reports/"
ALL = MISSING.format("metrics (1), tags (1), params (1), table (1)")


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
    line, missing = said()
    assert line.startswith("MLflow failed while opening the run (")
    assert reason in line
    assert missing == ALL


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
    assert said() == [LINE.format("opening the run", f"{database}: database is locked"), ALL]
    with disk.locked_store(root):
        work(settings, root)
    line, _ = said()
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
    assert said() == [LINE.format("logging metrics", "disk I/O error"), ALL]


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
    assert said() == [LINE.format("opening the run", f"{server}: {why}"), ALL]


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
    assert said() == ["MLflow failed while closing the run (gone)"]


def test_what_could_not_be_logged_is_sent_at_the_next_chance(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its order, with the time at which it was logged, and not before some time has passed."""
    with tracked_run(settings, root, "train", name="x", stage_params={}) as run:
        with monkeypatch.context() as down:
            down.setattr("mlflow.log_metrics", Mock(side_effect=OSError("server gone")))
            run.metrics({"loss": 1.0}, step=0)
        assert said() == [LINE.format("logging metrics", "server gone")]
        logged = time.time()
        run.metrics({"loss": 0.5}, step=1)
        client = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db")
        assert client.get_metric_history(run.id, "loss") == []
        later = time.monotonic() + outbox.RETRY_SECONDS
        monkeypatch.setattr(time, "monotonic", lambda: later)
        run.tags({"some": "tag"})
        history = client.get_metric_history(run.id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.0), (1, 0.5)]
    assert all(metric.timestamp <= logged * 1000 + 50 for metric in history)
    assert client.get_run(run.id).data.tags["some"] == "tag"
    assert said() == []


def test_a_run_that_opens_late_has_all_that_was_logged(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "of an engine")
    with monkeypatch.context() as down:
        down.setattr("mlflow.start_run", Mock(side_effect=OSError("server gone")))
        stage = tracked_run(settings, root, "train", name="x", stage_params={"train.lr": 0.1})
        run = stage.__enter__()
        run.metrics({"loss": 1.0}, step=0)
        assert run.id == ""
    stage.__exit__(None, None, None)
    assert said() == [LINE.format("opening the run", "server gone")]
    (opened,) = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db").search_runs(["1"])
    assert opened.info.run_id == run.id
    assert (opened.info.status, opened.data.metrics) == ("FINISHED", {"loss": 1.0})
    assert opened.data.params == {"train.lr": "0.1"}
    assert opened.data.tags["mlflow.parentRunId"] == "of an engine"


def test_a_run_whose_params_fail_is_opened_once(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as down:
        down.setattr("mlflow.log_params", Mock(side_effect=OSError("server gone")))
        stage = tracked_run(settings, root, "train", name="x", stage_params={"train.lr": 0.1})
        run = stage.__enter__()
        run.metrics({"loss": 1.0}, step=0)
    stage.__exit__(None, None, None)
    assert said() == [LINE.format("logging params", "server gone")]
    (opened,) = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db").search_runs(["1"])
    assert (opened.data.params, opened.data.metrics) == ({"train.lr": "0.1"}, {"loss": 1.0})


def test_a_run_that_was_not_closed_is_closed_by_the_next_stage(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db")
    with monkeypatch.context() as down:
        for function in ("mlflow.log_metrics", "mlflow.tracking.MlflowClient.set_terminated"):
            down.setattr(function, Mock(side_effect=OSError("server gone")))
        with tracked_run(settings, root, "train", name="x", stage_params={}) as run:
            run.metrics({"loss": 1.0})
    assert said() == [LINE.format("logging metrics", "server gone"), MISSING.format("metrics (1)")]
    assert client.get_run(run.id).info.status == "RUNNING"
    run.writer = None  # its lock ends with it, as with the process
    work(settings, root)
    assert client.get_run(run.id).info.status == "KILLED"


def test_a_run_that_is_gone_holds_up_nothing(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]]
) -> None:
    """Somebody has deleted it in the UI."""
    with tracked_run(settings, root, "train", name="x", stage_params={}) as run:
        MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db").delete_run(run.id)
        run.metrics({"loss": 1.0})
        run.tags({"some": "tag"})
    refused, missing, *_ = said()
    assert refused.startswith("MLflow refuses metrics (")
    assert missing == MISSING.format("metrics (1), tags (1)")


def test_what_mlflow_refuses_does_not_hold_up_the_rest(
    settings: TrackingParams, root: Path, said: Callable[[], list[str]]
) -> None:
    with tracked_run(settings, root, "train", name="x", stage_params={"train.lr": 0.1}) as run:
        run.params({"train.lr": 0.2})
        run.metrics({"loss": 1.0})
    refused, missing = said()
    assert refused.startswith("MLflow refuses params (")
    assert missing == MISSING.format("params (1)")
    (opened,) = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db").search_runs(["1"])
    assert opened.data.metrics == {"loss": 1.0}


def test_the_longer_an_attempt_takes_the_later_is_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a server that hangs holds a stage up for a twentieth of its time."""
    clock = [0.0]
    attempts = []

    def hang() -> None:
        attempts.append(clock[0])
        clock[0] += 120
        raise OSError("timed out")

    monkeypatch.setattr(outbox.time, "monotonic", lambda: clock[0])
    box = Outbox("http://127.0.0.1:9", hang)
    for _ in range(10_000):
        clock[0] += 1
        box.add("metrics", lambda: None)
    assert attempts == [1, 2521, 5041, 7561, 10081]


def test_without_mlflow_the_work_goes_on(
    settings: TrackingParams, tmp_path: Path, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    client.mlflow.cache_clear()
    work(settings, tmp_path)
    line, missing = said()
    assert line.startswith("MLflow failed while opening the run (import of mlflow halted")
    assert missing == ALL
