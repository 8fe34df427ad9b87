"""The committed pipelines and the manifests, with all real stages on a tiny data set: `make kfp-test`.

Not a part of `make test`: it takes some minutes. There is no cluster in it: kfp runs the steps as processes,
and so are the commands of the manifests run.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import yaml
from dvc_project import environment, make_project, run_python, set_params
from kfp_runs import LocalRun, kfp_python, ran, run_pipeline
from manifests import container
from waiting import Ended, finish, start, wait_until

from ssd.files import sha256

STAGES = ["check_params", "download", "preprocess", "train", "evaluate", "export", "report"]
SHARDS = "preprocess.shards=3"
SETTINGS = ["train.epochs=2", "tracking.enabled=false", SHARDS]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def on_volume(project: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    folder = tmp_path_factory.mktemp("volume")
    store = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    settings = ["train.epochs=2", SHARDS]
    return run_pipeline(project, "pipeline.yaml", folder, settings=settings, mlflow_uri=store)


@pytest.fixture(scope="module")
def on_one_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which preprocess has decoded all images itself."""
    project = make_project(tmp_path_factory.mktemp("alone"), **{"preprocess.shards": 3})
    run_python(project, "dvc", "repro", "preprocess")
    return project


@pytest.fixture(scope="module")
def on_remote(project: Path, tmp_path_factory: pytest.TempPathFactory) -> list[LocalRun]:
    """Two runs with the same remote."""
    remote = str(tmp_path_factory.mktemp("remote"))
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    return [
        run_pipeline(project, "pipeline-remote.yaml", folder, settings=SETTINGS, remote=remote)
        for folder in folders
    ]


def test_all_stages_run_once_by_the_settings_of_the_run(on_volume: LocalRun) -> None:
    assert on_volume.code == 0, on_volume.log
    assert ran(on_volume) == STAGES
    assert len(on_volume.artifact("train", "training").read_text().splitlines()) == 1 + 2
    assert on_volume.outputs("train")["training"]["metadata"]["epoch"] == 2


def test_the_exported_artifacts_detect(on_volume: LocalRun) -> None:
    images = torch.zeros(1, 3, 50, 70, dtype=torch.uint8)
    session = onnxruntime.InferenceSession(on_volume.artifact("export", "onnx").read_bytes())
    onnx = session.run(None, {"images": images.numpy()})
    script = torch.jit.load(on_volume.artifact("export", "torchscript"))(images)
    assert onnx[0].shape == tuple(script[0].shape)


def test_the_metrics_of_the_step_are_the_figures_of_the_file(on_volume: LocalRun) -> None:
    figures = json.loads(on_volume.artifact("evaluate", "metrics").read_text())
    shown = on_volume.outputs("evaluate")["metrics"]["metadata"]
    assert shown["coco_map50"] == figures["coco"]["map50"]
    assert shown["voc_map_area"] == figures["voc"]["map_area"]
    assert shown["training_criterion_loss"] == figures["training_criterion"]["loss"]
    assert all(isinstance(value, int | float) for value in shown.values())
    assert on_volume.outputs("export")["comparison"]["metadata"]["num_detections"] > 0


def test_the_pages_hold_the_pictures_and_the_account(on_volume: LocalRun) -> None:
    page = on_volume.artifact("report", "pictures").read_text()
    assert page.count('src="data:image/') == 7
    assert "| num_images_kept | 40 |" in on_volume.artifact("preprocess", "account").read_text()
    assert on_volume.outputs("preprocess")["tensors"]["metadata"]["num_files"] == 3 * 3


@pytest.mark.parametrize("state", ["volume", "remote"])
def test_preprocess_decodes_no_image_that_was_packed_and_writes_what_one_machine_does(
    state: str, request: pytest.FixtureRequest, on_one_machine: Path
) -> None:
    found = request.getfixturevalue(f"on_{state}")
    run = found if state == "volume" else found[0]
    assert sorted(re.findall(r"packed: data/packed/(\d+)-of-00003", run.log)) == ["00000", "00001", "00002"]
    assert "40 of 40 images are packed already" in run.log
    session = onnxruntime.InferenceSession(run.artifact("export", "onnx").read_bytes())
    certificate = json.loads(session.get_modelmeta().custom_metadata_map["certificate"])
    tensors = on_one_machine / "data/tensors"
    assert certificate["data_sha256"] == {folder.name: sha256(folder) for folder in tensors.iterdir()}


def test_a_second_run_with_the_same_remote_runs_nothing_and_has_the_same_artifacts(
    on_remote: list[LocalRun],
) -> None:
    first, second = on_remote
    assert (first.code, second.code) == (0, 0), first.log + second.log
    assert sorted(ran(first)) == sorted(STAGES)
    assert ran(second) == []
    assert "packed: data/" in first.log
    assert "packed: data/" not in second.log
    for stage, name in (
        ("train", "model"),
        ("export", "onnx"),
        ("evaluate", "metrics"),
        ("report", "pictures"),
    ):
        one, other = (hashlib.sha256(run.artifact(stage, name).read_bytes()) for run in on_remote)
        assert one.hexdigest() == other.hexdigest(), name


def compile_with_claim(project: Path) -> dict[str, Any]:
    """Write kubeflow/claim.yaml, for a remote and a claim; returns what Kubernetes mounts, by the step."""
    graph = subprocess.run(
        [sys.executable, "kubeflow/graph.py"], cwd=project, capture_output=True, check=True
    )
    options = ["--state", "remote", "--checkpoints", "ssd-checkpoints", "kubeflow/claim.yaml"]
    command = [kfp_python(), "kubeflow/pipeline.py", *options]
    subprocess.run(command, cwd=project, input=graph.stdout, check=True)
    _, platforms = yaml.safe_load_all((project / "kubeflow/claim.yaml").read_text())
    executors = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name: executor["pvcMount"] for name, executor in executors.items() if "pvcMount" in executor}


def test_a_killed_training_resumes_from_its_claim_where_the_state_is_in_a_remote(
    project: Path, tmp_path: Path
) -> None:
    mounts = compile_with_claim(project)
    (mount,) = mounts.pop("exec-train")
    assert (mount["mountPath"], mount["pvcNameParameter"]["runtimeValue"]["constant"], mounts) == (
        "/checkpoints",
        "ssd-checkpoints",
        {},
    )
    volume = tmp_path / "volume"
    volume.mkdir()
    file = project / "kubeflow/claim.yaml"
    here = file.read_text().replace("remote:/checkpoints", f"remote:{volume}")
    file.write_text(here.replace("backoffDuration: 30s", "backoffDuration: 0s"))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(
            run_pipeline,
            project,
            file.name,
            tmp_path / "run",
            settings=["train.epochs=30"],
            remote=str(tmp_path / "remote"),
        )
        wait_until(lambda: running.done() or any(volume.glob("*/step-*.pt")))
        assert not running.done(), running.result().log
        (holder,) = volume.glob("*/.holder")
        os.kill(int(holder.read_text().split()[0]), signal.SIGKILL)
    run = running.result()
    assert run.code == 0, run.log
    assert sorted(ran(run)) == sorted([*STAGES, "train"])
    assert "training resumes after epoch" in run.log
    assert len(run.artifact("train", "training").read_text().splitlines()) == 1 + 30


def start_pod(file: str, root: Path, variables: Mapping[str, str] | None = None) -> Any:
    """Start the command of a manifest's container, with the folders of `root` in place of the pod's."""

    def here(text: str) -> str:
        return re.sub(r"(?<!\S)/(app|params|workspace)\b", lambda found: f"{root}{found[0]}", text)

    pod = container(file)
    given = {item["name"]: item["value"] for item in pod.get("env", []) if "value" in item}
    command = [here(part) for part in pod["command"]]
    return start(command, environment() | given | dict(variables or {}), Path(here(pod["workingDir"])))


def test_the_commands_of_the_manifests_end_with_an_exported_model(tmp_path: Path) -> None:
    """The code of the image goes onto the volume, two nodes train, and DVC takes their result."""
    app, params = make_project(tmp_path / "app"), tmp_path / "params"
    shutil.rmtree(app / ".git")
    run_python(app, "dvc", "config", "--local", "core.no_scm", "true")  # as in the Dockerfile
    params.mkdir()
    set_params(params, **{"tracking.enabled": False, "train.epochs": 2})
    (tmp_path / "workspace/new").mkdir(parents=True)  # of a pod that was killed

    prepared = finish(start_pod("prepare.yaml", tmp_path))
    assert prepared.code == 0, prepared
    assert re.findall(r"Running stage '(\w+)'", prepared.stdout) == STAGES[:3]

    here = {"PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": "29517"}
    nodes = [start_pod("indexed-job.yaml", tmp_path, {**here, "PET_NODE_RANK": rank}) for rank in "01"]
    ended: list[Ended] = [finish(node) for node in nodes]
    assert [node.code for node in ended] == [0, 0], ended
    assert "training on 2 processes" in ended[0].stdout + ended[0].stderr

    finished = finish(start_pod("finish.yaml", tmp_path))
    assert finished.code == 0, finished
    assert "Stage 'train' didn't change, skipping" in finished.stdout
    project = tmp_path / "workspace/project"
    assert len((project / "reports/train/history.tsv").read_text().splitlines()) == 1 + 2
    assert (project / "models/export/ssd.onnx").stat().st_size > 0
