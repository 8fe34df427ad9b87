"""Checks manifests against the published schemas, in the environment of kfp.

    python validate_manifests.py FILE ...

A TrainJob by the models of kubeflow-trainer-api, the others by those of Kubernetes that come with it, and by
the official client of Kubernetes. Models leave out what they do not know: each object must come back whole.
Prints the kind of each object; a difference is an error.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubeflow_trainer_api.models as models
import yaml
from kubernetes.client import ApiClient

MODELS = {
    "TrainJob": models.TrainerV1alpha1TrainJob,
    "Job": models.IoK8sApiBatchV1Job,
    "Pod": models.IoK8sApiCoreV1Pod,
    "PersistentVolumeClaim": models.IoK8sApiCoreV1PersistentVolumeClaim,
    "Service": models.IoK8sApiCoreV1Service,
}


def by_model(manifest: dict[str, Any]) -> dict[str, Any]:
    """The object as the model of its kind understands it."""
    return MODELS[manifest["kind"]].from_dict(manifest).to_dict()


def by_client(manifest: dict[str, Any]) -> dict[str, Any]:
    """The object as the client of Kubernetes understands it."""
    client = ApiClient()
    read = client.deserialize(SimpleNamespace(data=json.dumps(manifest)), f"V1{manifest['kind']}")
    return client.sanitize_for_serialization(read)


def main() -> None:
    for name in sys.argv[1:]:
        for manifest in yaml.safe_load_all(Path(name).read_text()):
            assert by_model(manifest) == manifest, f"{name}: {by_model(manifest)}"
            if manifest["kind"] != "TrainJob":
                assert by_client(manifest) == manifest, f"{name}: {by_client(manifest)}"
            sys.stdout.write(f"{manifest['kind']}\n")


if __name__ == "__main__":
    main()
