"""The manifests of distributed training, and their containers."""

from typing import Any

import yaml
from default_params import REPOSITORY

FOLDER = REPOSITORY / "kubeflow/distributed"
FILES = sorted(FOLDER.glob("*.yaml"))


def manifest(file: str, kind: str) -> dict[str, Any]:
    """The object of a kind in a file."""
    objects: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / file).read_text()))
    (found,) = (item for item in objects if item["kind"] == kind)
    return found


def pods() -> dict[str, dict[str, Any]]:
    """The spec of each pod, by the file that describes it; of the TrainJob, what is given of it."""
    jobs = ("prepare.yaml", "indexed-job.yaml", "finish.yaml")
    found = {file: manifest(file, "Job")["spec"]["template"]["spec"] for file in jobs}
    found["files.yaml"] = manifest("files.yaml", "Pod")["spec"]
    train = manifest("trainjob.yaml", "TrainJob")["spec"]
    (patch,) = train["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {"image": train["trainer"]["image"], "command": train["trainer"]["command"]}
    resources = {"resources": train["trainer"]["resourcesPerNode"]}
    found["trainjob.yaml"] = {**pod, "containers": [container | given | resources]}
    return found


def container(file: str) -> dict[str, Any]:
    """The one container of the pod in a file."""
    (only,) = pods()[file]["containers"]
    return dict(only)
