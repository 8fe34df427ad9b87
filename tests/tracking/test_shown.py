"""What MLflow's pages show: the table of results, notes, datasets, versions of the registered model."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from ssd.params import TrackingParams
from ssd.tracking.client import open_store
from ssd.tracking.datasets import Split
from ssd.tracking.description import description
from ssd.tracking.disk import set_experiment_tag
from ssd.tracking.opening import MODEL_TAG, STAGE_TAG
from ssd.tracking.overview import METRICS, NOTE_TAG, OURS, PARAMS, VIEW_TAG, address, view
from ssd.tracking.registered import register, registered_name
from ssd.tracking.run import Run, tracked_run

PARAMETERS = {
    **{"data.source": "shapes", "data.path": "data/own", "model.backbone": "resnet18"},
    **{"model.input_size": "128", "model.weights": "none", "train.epochs": "4", "train.lr": "0.002"},
    "train.select_by": "map50",
}
FIGURES = {"test/coco_map50": 0.8512, "test/coco_map50_low": 0.831, "test/coco_map50_high": 0.879}


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow/mlflow.db'}")


def run_stage(settings: TrackingParams, root: Path, stage: str, digest: str | None = None) -> Run:
    """A run of a stage that has logged what it would log."""
    with tracked_run(settings, root, stage, name="x", stage_params={"a.b": 1}, model_digest=digest) as run:
        if stage == "train":
            run.params(PARAMETERS)
            run.metrics({"data/train_images": 4800, "best/epoch": 4, "best/score": 0.86})
            run.tags({MODEL_TAG: "abc", "data_sha256_train": "123"})
        if stage == "evaluate":
            run.metrics(FIGURES)
    return run


def test_an_experiment_opens_on_the_figures_that_stages_log(root: Path) -> None:
    tags = client_of(root).get_experiment("1").tags
    columns = json.loads(tags[VIEW_TAG])["selectedColumns"]
    assert {f"metrics.`{name}`" for name in METRICS} | {f"params.`{name}`" for name in PARAMS} <= {*columns}
    assert address("http://127.0.0.1:5000", "1").endswith(
        "/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=results"
    )
    assert tags[NOTE_TAG].endswith(OURS)


def test_the_view_of_an_old_store_is_renewed_and_a_note_of_a_person_stays(
    settings: TrackingParams, root: Path
) -> None:
    client = client_of(root)
    client.set_experiment_tag("1", VIEW_TAG, "{}")
    client.set_experiment_tag("1", NOTE_TAG, "Ask Ada before you delete these.")
    _, writer = open_store(settings, root)
    writer.gone()
    tags = client.get_experiment("1").tags
    assert (tags[VIEW_TAG], tags[NOTE_TAG]) == (view(), "Ask Ada before you delete these.")


def test_a_tag_is_set_on_disk_as_mlflow_sets_it(root: Path) -> None:
    assert set_experiment_tag(root, VIEW_TAG, "new") == {"ssd": "1"}
    assert client_of(root).get_experiment("1").tags[VIEW_TAG] == "new"
    assert client_of(root).get_experiment("0").tags == {}


def test_a_run_describes_itself_by_what_it_holds(settings: TrackingParams, root: Path) -> None:
    run = run_stage(settings, root, "train")
    run_stage(settings, root, "evaluate", "abc")
    tags = client_of(root).get_run(run.id).data.tags
    assert "`shapes` (4800 training images) by resnet18 at 128 pixels, from scratch" in tags[NOTE_TAG]
    assert "| mAP@0.5 (COCO) | 0.8512 | 0.831 to 0.879 |" in tags[NOTE_TAG]


def test_a_description_that_a_person_wrote_stays(settings: TrackingParams, root: Path) -> None:
    run = run_stage(settings, root, "train")
    client_of(root).set_tag(run.id, NOTE_TAG, "The one for the paper.")
    run_stage(settings, root, "evaluate", "abc")
    assert client_of(root).get_run(run.id).data.tags[NOTE_TAG] == "The one for the paper."


@pytest.mark.parametrize("params", [{}, {"evaluate.nms_iou": "0.6"}])
def test_a_child_run_is_described_by_its_figures_alone(params: Mapping[str, str]) -> None:
    assert description(params, {"test/coco_map": 0.5}).startswith("| test split | figure |")


def test_no_internals_and_no_empty_tags_are_shown(settings: TrackingParams, root: Path) -> None:
    run = run_stage(settings, root, "train")
    tags = client_of(root).get_run(run.id).data.tags
    shown = {key: value for key, value in tags.items() if not key.startswith("mlflow.")}
    assert shown.keys() - {"git_dirty"} == {MODEL_TAG, "data_sha256_train"}
    assert all(shown.values())


def test_a_run_of_an_older_version_is_compared_by_the_tag_that_it_has(
    settings: TrackingParams, root: Path
) -> None:
    run_stage(settings, root, "train")
    parent = run_stage(settings, root, "evaluate", "abc")
    client = client_of(root)
    client.set_tag(parent.id, "stage.evaluate", "[('a.b', 1)]")
    client.delete_tag(parent.id, f"{STAGE_TAG}evaluate")
    assert run_stage(settings, root, "evaluate", "abc").id == parent.id
    client.set_tag(parent.id, "stage.evaluate", "[('a.b', 2)]")
    client.delete_tag(parent.id, f"{STAGE_TAG}evaluate")
    child = client.get_run(run_stage(settings, root, "evaluate", "abc").id)
    assert child.info.run_name == "b=1 · evaluate"


def test_splits_are_datasets_of_the_run(settings: TrackingParams, root: Path) -> None:
    splits = [
        Split("shapes", use, f"{number}" * 64, f"data/tensors/{use}", 24, 70, ["disc"])
        for number, use in enumerate(("train", "val"))
    ]
    for _ in range(2):
        with tracked_run(settings, root, "train", name="x", stage_params={}, model_digest="abc") as run:
            run.datasets(*splits)
    inputs = client_of(root).get_run(run.id).inputs.dataset_inputs
    assert {(item.dataset.name, item.dataset.digest, item.tags[0].value) for item in inputs} == {
        ("shapes", "0" * 12, "train"),
        ("shapes", "1" * 12, "val"),
    }
    assert len(inputs) == 2
    profile = json.loads(inputs[0].dataset.profile)
    assert (profile["num_images"], profile["num_objects"], profile["classes"]) == (24, 70, ["disc"])


@pytest.mark.parametrize("order", [("evaluate", "export"), ("export", "evaluate")])
def test_a_version_has_the_figures_and_digests_of_the_run_with_the_weights(
    settings: TrackingParams, root: Path, order: tuple[str, str]
) -> None:
    client = client_of(root)
    trained = run_stage(settings, root, "train")
    for stage in order:
        stage_run = run_stage(settings, root, stage, "abc")
        if stage == "export":
            model = client.create_logged_model("1", "ssd-resnet18-128", stage_run.id)
            register("ssd", model.model_id, "def", client.get_run(trained.id))
    run_stage(settings, root, "export", "abc")
    (version,) = versions(client)
    assert version.run_id == trained.id
    assert version.tags == {
        "model_sha256": "abc",
        "onnx_sha256": "def",
        "data_sha256_train": "123",
        "test/coco_map50": "0.8512",
        "test/coco_map50_low": "0.8310",
        "test/coco_map50_high": "0.8790",
    }


def test_versions_of_other_runs_stay(settings: TrackingParams, root: Path) -> None:
    _, writer = open_store(settings, root)
    writer.gone()
    client = client_of(root)
    runs: list[MlflowRun] = []
    for number in range(2):
        run = client.create_run("1")
        model = client.create_logged_model("1", "m", run.info.run_id)
        register("ssd", model.model_id, f"onnx{number}", run)
        register("ssd", model.model_id, f"onnx{number}", run)
        runs.append(run)
    assert {(version.version, version.run_id) for version in versions(client)} == {
        (number, run.info.run_id) for number, run in enumerate(runs, 1)
    }


def test_the_name_of_an_experiment_becomes_one_that_the_registry_takes() -> None:
    assert registered_name("team/cells: red") == "team-cells- red"
    assert registered_name("Ann's cells") == "Ann-s cells"


def versions(client: MlflowClient) -> list[ModelVersion]:
    return list(client.search_model_versions("name = 'ssd'"))
