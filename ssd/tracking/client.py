"""The mlflow module, and the store that a stage logs to."""

import hashlib
import logging
import os
import sqlite3
import textwrap
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ssd.params import TrackingParams
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

WRITER_TAG = "writer"

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


def open_store(settings: TrackingParams, root: Path) -> tuple[str, Writer]:
    """Set the tracking URI; return the experiment's id, and this process as a writer of runs.

    The caller tags its runs with `WRITER_TAG`. Runs of processes that were killed are closed.

    Args:
        settings: the `tracking` section.
        root: the main workspace, which contains the MLflow store.
    """
    mlflow().set_tracking_uri(settings.uri or f"sqlite:///{database(root)}")
    with locked_store(root):  # or two processes would create it
        if not settings.uri:
            check_database(root)
        experiment_id = _experiment(settings, root)
        if not settings.uri:
            make_locations_relative(root)
            _resolve_locations(root)
        store = hashlib.sha256(f"{settings.uri} {experiment_id}".encode()).hexdigest()[:12]
        writers = root.resolve() / FOLDER / "writers"
        _close_runs_of_the_dead(experiment_id, writers, store)
        return experiment_id, Writer(writers, store)


def _experiment(settings: TrackingParams, root: Path) -> str:
    client = mlflow().MlflowClient()
    existing = client.get_experiment_by_name(settings.experiment)
    if existing is not None:
        return str(existing.experiment_id)
    artifacts = None if settings.uri else absolute_location(ARTIFACTS, root)
    return str(client.create_experiment(settings.experiment, artifact_location=artifacts))


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
        query = f"tags.{WRITER_TAG} = '{dead.name}' and attributes.status = 'RUNNING'"
        for run in client.search_runs([experiment_id], query):
            ended = max(run.info.start_time, int(dead.last_seen * 1000))
            client.set_terminated(run.info.run_id, "KILLED", end_time=ended)


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
