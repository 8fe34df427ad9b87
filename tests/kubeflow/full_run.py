"""The committed pipelines and the manifests, with all real stages on a tiny data set: `make kfp-test`.

Not a part of `make test`: it takes some minutes. There is no cluster in it: kfp runs the steps as processes,
and so are the commands of the manifests run.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from dvc_project import environment, make_project, run_python, set_params
from kfp_runs import LocalRun, ran, run_pipeline
from manifests import container
from waiting import Ended, finish, start

STAGES = ["check_params", "download", "preprocess", "train", "evaluate", "export", "report"]
SETTINGS = ["train.epochs=2", "tracking.enabled=false"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def on_volume(project: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    folder = tmp_path_factory.mktemp("volume")
    store = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    return run_pipeline(project, "pipeline.yaml", folder, settings=SETTINGS[:1], mlflow_uri=store)


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
    assert on_volume.outputs("preprocess")["tensors"]["metadata"]["num_files"] == 3


def test_a_second_run_with_the_same_remote_runs_nothing_and_has_the_same_artifacts(
    on_remote: list[LocalRun],
) -> None:
    first, second = on_remote
    assert (first.code, second.code) == (0, 0), first.log + second.log
    assert sorted(ran(first)) == sorted(STAGES)
    assert ran(second) == []
    for stage, name in (
        ("train", "model"),
        ("export", "onnx"),
        ("evaluate", "metrics"),
        ("report", "pictures"),
    ):
        one, other = (hashlib.sha256(run.artifact(stage, name).read_bytes()) for run in on_remote)
        assert one.hexdigest() == other.hexdigest(), name


def start_pod(file: str, project: Path, variables: Mapping[str, str] | None = None) -> Any:
    """Start the command of a manifest's container, with the project in place of the volume."""
    given = {item["name"]: item["value"] for item in container(file).get("env", []) if "value" in item}
    command = [part.replace("/workspace/project", str(project)) for part in container(file)["command"]]
    return start(command, environment() | given | dict(variables or {}), project)


def test_the_commands_of_the_indexed_job_and_of_finish_end_with_an_exported_model(tmp_path: Path) -> None:
    """Two nodes train together, and DVC takes their result for that of its stage."""
    project = make_project(tmp_path)
    set_params(project, **{"tracking.enabled": False, "train.epochs": 2})
    run_python(project, "dvc", "repro", "preprocess")
    here = {"PET_MASTER_ADDR": "localhost", "PET_MASTER_PORT": "29517"}
    nodes = [start_pod("indexed-job.yaml", project, {**here, "PET_NODE_RANK": rank}) for rank in "01"]
    ended: list[Ended] = [finish(node) for node in nodes]
    assert [node.code for node in ended] == [0, 0], ended
    assert "training on 2 processes" in ended[0].stdout + ended[0].stderr
    finished = finish(start_pod("finish.yaml", project))
    assert finished.code == 0, finished
    assert "Stage 'train' didn't change, skipping" in finished.stdout
    assert (project / "models/export/ssd.onnx").stat().st_size > 0
