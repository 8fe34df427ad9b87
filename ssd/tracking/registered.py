"""Versions of MLflow's registered model: one for each exported file, with the figures of its run.

A version belongs to the run that has `model/model.pt`, the weights that the file was made of; also where the
export itself is a child run, with other thresholds.
"""

import re
from typing import Any

from ssd.tracking.client import mlflow
from ssd.tracking.opening import MODEL_TAG

ONNX_TAG = "onnx_sha256"
COPIED_TAGS = (MODEL_TAG, "data_sha256_train", "data_sha256_val", "data_sha256_test")
COPIED_METRICS = ("test/coco_map50", "test/coco_map", "test/voc_f1")


def registered_name(experiment: str) -> str:
    """Of the model whose versions compete: `tracking.experiment`, since another problem has another one.

    MLflow allows no "/" and ":" in it, and its searches know no escape of an apostrophe.
    """
    return re.sub("[/:']", "-", experiment)


def logged_name(network: str) -> str:
    """ "ssd-resnet18-128" for "resnet18-128": as MLflow allows it."""
    return f"ssd-{re.sub('[^A-Za-z0-9_-]+', '-', network)}"


def register(name: str, model_id: str, onnx_digest: str, run: Any) -> None:
    """Make a version of a logged model, unless there is one of the same file.

    Args:
        name: of the registered model, which is created if it does not exist.
        model_id: of the logged model.
        onnx_digest: SHA-256 of the file that it serves.
        run: that of the weights.
    """
    client = mlflow().MlflowClient()
    if client.search_model_versions(f"name = '{name}' and tags.{ONNX_TAG} = '{onnx_digest}'"):
        return
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Exported detectors, a version for each file.")
    tags = {ONNX_TAG: onnx_digest, **facts(run)}
    client.create_model_version(name, f"models:/{model_id}", run.info.run_id, tags, model_id=model_id)


def update_versions(name: str, run: Any) -> None:
    """Tag the versions of a run with what the run knows by now: evaluation and export come in any order."""
    client = mlflow().MlflowClient()
    for version in client.search_model_versions(f"name = '{name}' and run_id = '{run.info.run_id}'"):
        for key, value in facts(run).items():
            if version.tags.get(key) != value:
                client.set_model_version_tag(name, version.version, key, value)


def facts(run: Any) -> dict[str, str]:
    """Digests, and figures with the ends of their intervals, as the run has them."""
    digests = {key: run.data.tags[key] for key in COPIED_TAGS if key in run.data.tags}
    keys = [f"{key}{end}" for key in COPIED_METRICS for end in ("", "_low", "_high")]
    return digests | {key: f"{run.data.metrics[key]:.4f}" for key in keys if key in run.data.metrics}
