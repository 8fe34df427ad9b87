"""`make ui`: MLflow on this machine alone, with the files of a store that was filled elsewhere."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psutil
import pytest
from waiting import finish, wait_until

from ssd.params import TrackingParams
from ssd.tracking.run import tracked_run
from stages import ui

REPOSITORY = Path(__file__).parents[2]
SETTINGS = TrackingParams(enabled=True, experiment="ssd", run_name="", system_metrics=False, uri="")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that does not become a server."""
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("no server may be started"))
    with pytest.raises(SystemExit) as stopped:
        ui.main(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    return line


def test_a_port_that_is_taken_is_told_with_the_way_to_another(
    taken_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(monkeypatch, capsys, str(taken_port))
    assert line.startswith(f"port {taken_port} is not free on 127.0.0.1 (Address already in use)")
    assert line.endswith(f"make ui PORT={taken_port + 1}")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", ""])
def test_what_is_no_port_is_told(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(monkeypatch, capsys, port).startswith(f"{port!r} is no port; ")


def test_a_damaged_store_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow/mlflow.db").write_text("no database")
    line = refused(monkeypatch, capsys, str(free_port()))
    assert line == f"{tmp_path}/mlflow/mlflow.db: file is not a database; move it away, and a new one is made"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.slow
def test_it_shows_the_files_of_a_store_that_was_filled_elsewhere_on_this_machine_alone(
    empty_store: Path, tmp_path: Path
) -> None:
    """The store names files as MLflow does by itself, in a container: by its absolute paths."""
    root = tmp_path / "a project"
    (tmp_path / "picture.png").write_bytes(b"a picture")
    shutil.copytree(empty_store / "mlflow", root / "mlflow")
    with tracked_run(SETTINGS, root, "train", name="x", stage_params={}) as run:
        run.file(tmp_path / "picture.png", "report")
    with closing(sqlite3.connect(root / "mlflow/mlflow.db")) as connection:
        connection.execute("UPDATE runs SET artifact_uri = 'file:///app/' || artifact_uri")
        connection.commit()
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    server = subprocess.Popen(
        [sys.executable, "-m", "stages.ui", str(port)],
        cwd=root,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )

    def get(path: str) -> bytes:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}{path}") as answer:
            return bytes(answer.read())

    def answers() -> bool:
        try:
            return get("/health") == b"OK"
        except URLError:
            return False

    wait_until(answers, server)
    try:
        listed = json.loads(get(f"/ajax-api/2.0/mlflow/artifacts/list?run_id={run.id}&path=report"))
        assert [file["path"] for file in listed["files"]] == ["report/picture.png"]
        assert get(f"/get-artifact?run_uuid={run.id}&path=report/picture.png") == b"a picture"
        processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        sockets = [
            item for process in processes for item in process.net_connections() if item.status == "LISTEN"
        ]
        assert {item.laddr.ip for item in sockets} == {"127.0.0.1"}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        output = finish(server).stdout
    assert output.startswith(f"MLflow starts; then open http://127.0.0.1:{port}/#/experiments/1/runs?")
