"""The mlflow module, and the store that a stage logs to."""

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from ssd.params import TrackingParams
from ssd.tracking.disk import ARTIFACTS, absolute_location, database, locked_store, make_locations_relative


@lru_cache
def mlflow() -> Any:
    """The module, imported on first use because the import takes seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow

    # Its messages about database tables and monitors would clutter the training log.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def open_experiment(settings: TrackingParams, root: Path) -> str:
    """Set the tracking URI; return the experiment's id.

    Args:
        settings: the `tracking` section.
        root: the main workspace, which contains the MLflow store.
    """
    mlflow().set_tracking_uri(settings.uri or f"sqlite:///{database(root)}")
    with locked_store(root):  # or two processes would create it
        experiment_id = _experiment(settings, root)
        if not settings.uri:
            make_locations_relative(root)
            _resolve_locations(root)
    return experiment_id


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
