"""Model files that MLflow keeps: those of a run, and those of a registered model's version."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ssd.errors import UserError
from ssd.params import TrackingParams
from ssd.tracking.client import MLFLOW_TRACKING_URI, mlflow, open_store, reason, refused, server_of
from ssd.tracking.disk import database

MODEL_ARTIFACT = "model/model.pt"
"""Where train logs the model in its run."""


def is_mlflow_uri(text: str) -> bool:
    """Whether it is runs:/ID, runs:/ID/PATH, models:/NAME/VERSION or models:/NAME@ALIAS."""
    return text.startswith(("runs:/", "models:/"))


def fetch_model(uri: str, settings: TrackingParams, root: Path, folder: Path) -> Path:
    """Copy the file that a URI of MLflow's names to a folder, unless it is there.

    Args:
        uri: see `is_mlflow_uri`; a run without a path and a registered model mean the run's model.pt.
        settings: the `tracking` section, of which the server or the store is taken.
        root: the main workspace, which contains the store.
        folder: for the copy; its name there is that of the run and of the file.

    Raises:
        UserError: MLflow knows no such run, model or file, or cannot be reached.
    """
    # A run's file stays as it is: where there is a copy, MLflow is not asked, and may be gone.
    if uri.startswith("runs:/") and (copy := _copy(folder, *_run_and_path(uri))).is_file():
        return copy
    with asked(uri, settings, root):
        run_id, path = _run_and_path(uri)
        target = _copy(folder, run_id, path)
        if not target.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder) as own:
                found = mlflow().artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=own)
                Path(found).replace(target)
        return target


@contextmanager
def asked(uri: str, settings: TrackingParams, root: Path) -> Iterator[Any]:
    """Open the store for questions about `uri`; in the block, a client of MLflow's. No store is created.

    Raises:
        UserError: MLflow has no such thing, refuses the question, or cannot be reached; the disk fails.
    """
    server = server_of(settings)
    if not server and not database(root).is_file():
        raise UserError(
            f"{uri}: {root} has no MLflow store; go to the folder of the one that is meant, or name its "
            f"server by {MLFLOW_TRACKING_URI}"
        )
    try:
        _, writer = open_store(settings, root)
        writer.gone()
        yield mlflow().MlflowClient()
    except FileNotFoundError as error:
        raise UserError(f"{uri}: MLflow has no such file: {reason(error, server)}") from None
    except (OSError, sqlite3.Error) as error:
        raise UserError(f"{uri}: not read from MLflow: {reason(error, server)}") from None
    except mlflow().exceptions.MlflowException as error:
        if error.get_http_status_code() == HTTPStatus.NOT_FOUND:
            what = "MLflow has no such file"
        else:
            what = "MLflow refuses it" if refused(error) else "MLflow failed"
        raise UserError(f"{uri}: {what}: {reason(error, server)}") from None


def _copy(folder: Path, run_id: str, path: str) -> Path:
    return folder / f"{run_id}-{PurePosixPath(path).name}"


def _run_and_path(uri: str) -> tuple[str, str]:
    """The id of the run and the path of the artifact in it."""
    kind, _, rest = uri.partition(":/")
    name, _, tail = rest.strip("/").partition("/")
    if kind == "runs":
        return name, tail or MODEL_ARTIFACT
    return model_version(uri).run_id, MODEL_ARTIFACT


def model_version(uri: str) -> Any:
    """The version of a registered model that models:/NAME/VERSION or models:/NAME@ALIAS names.

    Raises:
        UserError: the URI names no version; MLflow's own errors where there is none.
    """
    client = mlflow().MlflowClient()
    name, _, number = uri.removeprefix("models:/").strip("/").partition("/")
    model, at, alias = name.partition("@")
    if at:
        return client.get_model_version_by_alias(model, alias)
    if number:
        return client.get_model_version(model, number)
    raise UserError(f"{uri}: say which version, as models:/{name}/1 or models:/{name}@champion")
