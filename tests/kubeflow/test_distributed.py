"""The manifests of distributed training: kubeflow/distributed."""

import subprocess

import pytest
from default_params import REPOSITORY
from kfp_runs import kfp_python
from manifests import FILES, container, manifest, pods

TRAININGS = ("trainjob.yaml", "indexed-job.yaml")


@pytest.mark.slow
def test_all_are_what_the_published_schemas_allow() -> None:
    command = [kfp_python(), "tests/kubeflow/validate_manifests.py", *map(str, FILES)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    kinds = ended.stdout.split()
    assert sorted(kinds) == ["Job", "Job", "Job", "PersistentVolumeClaim", "Pod", "Service", "TrainJob"]


def test_all_pods_share_one_volume_as_one_user_who_may_write_there() -> None:
    claim = manifest("files.yaml", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for file, pod in pods().items():
        user = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "runAsNonRoot": True}
        assert pod["securityContext"] == user, file
        claims = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
        name = claim["metadata"]["name"]
        assert claims == [{"name": "workspace", "persistentVolumeClaim": {"claimName": name}}], file
        assert {"name": "workspace", "mountPath": "/workspace"} in container(file)["volumeMounts"], file
        assert container(file)["image"] == "ssd:latest", file


@pytest.mark.parametrize("file", TRAININGS)
def test_torchrun_starts_the_training_with_a_process_for_each_gpu(file: str) -> None:
    """Kubernetes sets PET_NNODES only: without torchrun each pod would train alone."""
    assert "torchrun -m stages.train" in " ".join(container(file)["command"])
    assert container(file)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "shm", "emptyDir": {"medium": "Memory"}} in pods()[file]["volumes"]
    if file == "trainjob.yaml":
        assert manifest(file, "TrainJob")["spec"]["trainer"]["numProcPerNode"] == 1


def test_the_pods_of_the_indexed_job_find_the_first_one() -> None:
    job, service = (manifest("indexed-job.yaml", kind) for kind in ("Job", "Service"))
    environment = {item["name"]: item.get("value") for item in container("indexed-job.yaml")["env"]}
    number = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == number == int(environment["PET_NNODES"])
    name, subdomain = job["metadata"]["name"], job["spec"]["template"]["spec"]["subdomain"]
    assert subdomain == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]
    assert environment["PET_MASTER_ADDR"] == f"{name}-0.{subdomain}"
    assert environment["PET_MASTER_PORT"] == str(service["spec"]["ports"][0]["port"])
    assert environment["PET_NPROC_PER_NODE"] == "1"
    (rank,) = (item for item in container("indexed-job.yaml")["env"] if item["name"] == "PET_NODE_RANK")
    field = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert rank["valueFrom"]["fieldRef"]["fieldPath"] == field
