"""The mlflow module, and the store that a stage logs to."""

import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from ssd.params import TrackingParams


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
    """Set the tracking URI; return the experiment's id. The lock prevents two processes from creating it.

    Args:
        settings: the `tracking` section.
        root: the main workspace, which contains the MLflow store.
    """
    mlflow().set_tracking_uri(settings.uri or f"sqlite:///{root.resolve() / 'mlflow' / 'mlflow.db'}")
    store = root.resolve() / "mlflow"
    store.mkdir(exist_ok=True)
    with FileLock(store / ".lock"):
        client = mlflow().MlflowClient()
        existing = client.get_experiment_by_name(settings.experiment)
        if existing is not None:
            return str(existing.experiment_id)
        artifacts = None if settings.uri else (store / "artifacts").as_uri()
        return str(client.create_experiment(settings.experiment, artifact_location=artifacts))
