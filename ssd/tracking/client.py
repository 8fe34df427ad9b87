"""The mlflow module, and the store that a stage logs to."""

import hashlib
import logging
import os
import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ssd.params import TrackingParams
from ssd.tracking import overview
from ssd.tracking.disk import (
    ARTIFACTS,
    FOLDER,
    absolute_location,
    check_database,
    database,
    locked_store,
    make_locations_relative,
)
from ssd.tracking.writers import Writer, dead_writers

MLFLOW_TRACKING_URI = "MLFLOW_TRACKING_URI"
WRITER_TAG = "mlflow.ssd.writer"
"""MLflow's pages show no tag whose name begins with "mlflow."."""
OLD_WRITER_TAG = "writer"

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
"""Of MLflow, unless the environment has others. By its own, a hanging server stops a stage for 20 minutes."""


@lru_cache
def mlflow() -> Any:
    """The module, imported on first use because the import takes seconds."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    # Where something fails, they print a hundred lines before they raise; what they raise is told in one.
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return mlflow


def server_of(settings: TrackingParams) -> str:
    """URI of the store: `tracking.uri`, else MLFLOW_TRACKING_URI; empty for the one in the workspace."""
    return settings.uri or os.environ.get(MLFLOW_TRACKING_URI, "")


def open_store(settings: TrackingParams, root: Path) -> tuple[str, Writer]:
    """Set the tracking URI; return the experiment's id, and this process as a writer of runs.

    The caller tags its runs with `WRITER_TAG`. Runs of processes that were killed are closed.

    Args:
        settings: the `tracking` section.
        root: the main workspace, which contains the MLflow store.
    """
    server = server_of(settings)
    # Child processes would get it, which have params, and a root, of their own.
    with _unchanged(MLFLOW_TRACKING_URI):
        mlflow().set_tracking_uri(server or f"sqlite:///{database(root)}")
    with locked_store(root):  # or two processes would create it
        if not server:
            check_database(root)
        artifacts = None if server else absolute_location(ARTIFACTS, root)
        experiment_id = _experiment(settings.experiment, artifacts)
        if not server:
            make_locations_relative(root)
            _resolve_locations(root)
        store = hashlib.sha256(f"{server} {experiment_id}".encode()).hexdigest()[:12]
        writers = root.resolve() / FOLDER / "writers"
        _close_runs_of_the_dead(experiment_id, writers, store)
        return experiment_id, Writer(writers, store)


@contextmanager
def brief_requests() -> Iterator[None]:
    """In the block, a request of MLflow's takes five seconds at most: it is made once."""
    with _unchanged("MLFLOW_HTTP_REQUEST_TIMEOUT"), _unchanged("MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        os.environ |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        yield


@contextmanager
def _unchanged(variable: str) -> Iterator[None]:
    """Set a variable back at the end of the block."""
    before = os.environ.get(variable)
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before


def _experiment(name: str, artifacts: str | None) -> str:
    """Its id; one that is new keeps artifacts in this location. It opens on the figures, old ones, too."""
    client = mlflow().MlflowClient()
    existing = client.get_experiment_by_name(name)
    if existing is None:
        return str(client.create_experiment(name, artifacts, overview.outdated_tags({})))
    for key, value in overview.outdated_tags(existing.tags).items():
        client.set_experiment_tag(existing.experiment_id, key, value)
    return str(existing.experiment_id)


def _resolve_locations(root: Path) -> None:
    """Let relative locations count from `root` in this process; DVC runs experiments in other folders."""
    from mlflow.store.artifact import artifact_repository_registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def repository(location: str, tracking_uri: str | None, registry_uri: str | None) -> Any:
        return LocalArtifactRepository(absolute_location(location, root), tracking_uri, registry_uri)

    registry: Any = artifact_repository_registry._artifact_repository_registry
    registry.register("", repository)


def _close_runs_of_the_dead(experiment_id: str, writers: Path, store: str) -> None:
    client = mlflow().MlflowClient()
    for dead in dead_writers(writers, store):
        for tag in (WRITER_TAG, OLD_WRITER_TAG):
            query = f"tags.`{tag}` = '{dead.name}' and attributes.status = 'RUNNING'"
            for run in client.search_runs([experiment_id], query):
                ended = max(run.info.start_time, int(dead.last_seen * 1000))
                client.set_terminated(run.info.run_id, "KILLED", end_time=ended)


def refused(error: Exception) -> bool:
    """Whether sending it again is of no use: not so where the disk, the database or the network failed."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
        passing = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
        return 400 <= status < 500 and status not in passing
    return not isinstance(error, OSError | sqlite3.Error) or isinstance(error, FileNotFoundError)


def reason(error: BaseException, uri: str) -> str:
    """Why MLflow failed, in one line: what the disk, the database or the network said, if one of them did.

    Args:
        error: what MLflow raised.
        uri: of the server, which is named without a password; anything else is not named.
    """
    told, cause = error, error
    while found := cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__):
        cause = found
        if isinstance(cause, OSError | sqlite3.OperationalError) and str(cause):
            told = cause
    text = next(iter(str(told).splitlines()), "") or type(told).__name__
    server = urlsplit(uri)
    if server.hostname:
        text = f"{server.netloc.rpartition('@')[2]}: {text}"  # without a password
    return textwrap.shorten(text, 200, placeholder=" ...")
