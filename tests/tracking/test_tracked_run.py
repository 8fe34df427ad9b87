"""MLflow: one run over all stages, an honest status, and a tracker that never stops the work."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient

from ssd.params import Params, TrackingParams
from ssd.tracking.opening import MODEL_TAG
from ssd.tracking.run import flat_params, tracked_run

MakeParams = Callable[..., Params]
REPOSITORY = Path(__file__).parents[2]


def store(root: Path) -> str:
    """The tracking URI."""
    return f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"


def runs(root: Path) -> list[MlflowRun]:
    """All runs, oldest first."""
    client = MlflowClient(store(root))
    experiment = client.get_experiment_by_name("ssd")
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))


def train(settings: TrackingParams, root: Path, digest: str) -> None:
    with tracked_run(settings, root, "train", name="shapes lr=0.1", stage_params={"train.lr": 0.1}) as run:
        run.params({"train.lr": 0.1})
        run.metrics({"train/loss": 2.5, "val/map50": None}, step=0)
        run.tags({MODEL_TAG: digest})


def evaluate(settings: TrackingParams, root: Path, digest: str, nms_iou: float = 0.45) -> None:
    own = {"evaluate.nms_iou": nms_iou, "evaluate.batch_size": 8}
    with tracked_run(
        settings, root, "evaluate", name="evaluate", stage_params=own, model_digest=digest
    ) as run:
        run.metrics({"test/coco_map": 0.5})


def test_later_stages_log_into_the_run_of_their_model(settings: TrackingParams, root: Path) -> None:
    train(settings, root, "abc")
    train(settings, root, "def")
    evaluate(settings, root, "abc")
    first, second = runs(root)
    assert first.data.metrics == {"train/loss": 2.5, "test/coco_map": 0.5}
    assert second.data.metrics == {"train/loss": 2.5}
    assert first.info.run_name == "shapes lr=0.1"
    assert first.data.params == {"train.lr": "0.1"}
    assert {run.info.status for run in (first, second)} == {"FINISHED"}


def test_the_same_stage_with_other_params_is_a_child_run(settings: TrackingParams, root: Path) -> None:
    train(settings, root, "abc")
    for nms_iou in (0.45, 0.45, 0.6):
        evaluate(settings, root, "abc", nms_iou)
    parent, child = runs(root)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.info.run_name == "nms_iou=0.6 · evaluate"


def test_a_table_that_is_logged_again_replaces_the_first(settings: TrackingParams, root: Path) -> None:
    for ap in (0.25, 0.5):
        with tracked_run(settings, root, "evaluate", name="x", stage_params={}, model_digest="abc") as run:
            run.table({"class": ["disc"], "ap": [ap]}, "per_class.json")
    table = MlflowClient(store(root)).load_table("1", "per_class.json", [run.id])
    assert table.to_dict("records") == [{"class": "disc", "ap": 0.5}]
    (listed,) = runs(root)
    assert json.loads(listed.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "per_class.json", "type": "table"}
    ], "so the UI shows it as a table"


SERVED = """
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

class Served(PythonModel):
    _skip_type_hint_validation = True

    def predict(self, context, model_input, params=None):
        return {"detections": [[]]}

set_model(Served())
"""


def test_a_model_that_is_logged_again_is_kept_once(
    settings: TrackingParams, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first logging was killed when its files were there."""
    onnx, code = root / "ssd.onnx", root / "served.py"
    code.write_text(SERVED)

    def export(content: bytes) -> None:
        onnx.write_bytes(content)
        with tracked_run(settings, root, "export", name="x", stage_params={}, model_digest="abc") as run:
            run.onnx_model("timm/a.b-64", onnx, code, ["mlflow"], "")

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(MlflowClient, "finalize_logged_model", Mock(side_effect=KeyboardInterrupt))
        export(b"first")
    for content in (b"first", b"first", b"second"):
        export(content)
    client = MlflowClient(store(root))
    models = client.search_logged_models(["1"])
    assert [model.status for model in models] == ["READY", "READY"]
    assert {model.tags["onnx_sha256"] for model in models} == {
        hashlib.sha256(content).hexdigest() for content in (b"first", b"second")
    }
    assert {model.name for model in models} == {"ssd-timm-a-b-64"}
    versions = client.search_model_versions("name = 'ssd'")
    assert {(version.tags["onnx_sha256"], version.source) for version in versions} == {
        (model.tags["onnx_sha256"], f"models:/{model.model_id}") for model in models
    }


def test_a_resumed_training_logs_the_epochs_that_the_run_lacks(settings: TrackingParams, root: Path) -> None:
    """And no epoch twice."""
    with tracked_run(settings, root, "train", name="x", stage_params={}) as run:
        run.metrics({"lr": 0.1, "val/map": 0.25}, step=1)
    history = {step: {"lr": step / 10, "val/map": None if step == 2 else 0.25} for step in (1, 2, 3)}
    with tracked_run(settings, root, "train", name="x", stage_params={}, resume=run.id) as resumed:
        resumed.missing_metrics("lr", history)
    client = MlflowClient(store(root))
    logged = {key: client.get_metric_history(run.id, key) for key in ("lr", "val/map")}
    assert [(metric.step, metric.value) for metric in logged["lr"]] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert [metric.step for metric in logged["val/map"]] == [1, 3]


def test_a_model_without_a_run_gets_one(settings: TrackingParams, root: Path) -> None:
    evaluate(settings, root, "from elsewhere")
    (run,) = runs(root)
    assert run.data.metrics == {"test/coco_map": 0.5}


def test_an_experiment_prefers_its_own_run(
    settings: TrackingParams, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "busy-bee")
    train(settings, root, "abc")
    monkeypatch.delenv("DVC_EXP_NAME")
    train(settings, root, "abc")
    monkeypatch.setenv("DVC_EXP_NAME", "busy-bee")
    evaluate(settings, root, "abc")
    own, other = runs(root)
    assert own.data.tags["dvc_experiment"] == "busy-bee"
    assert "dvc_experiment" not in other.data.tags
    assert "test/coco_map" in own.data.metrics
    assert "test/coco_map" not in other.data.metrics


def test_a_run_is_taken_up_again_by_its_own_experiment_only(
    settings: TrackingParams, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(resume: str | None) -> tuple[str, bool]:
        with tracked_run(
            settings, root, "train", name="x", stage_params={"train.lr": 0.1}, resume=resume
        ) as run:
            run.metrics({"loss": 1.0})
        return run.id, run.resumed

    first, resumed = begin(None)
    assert not resumed
    assert begin(first) == (first, True)
    assert begin("no such run")[1] is False
    monkeypatch.setenv("DVC_EXP_NAME", "busy-bee")
    assert begin(first)[1] is False
    assert len(runs(root)) == 3


def test_a_failing_stage_is_failed_and_an_interrupted_one_killed(
    settings: TrackingParams, root: Path
) -> None:
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), tracked_run(settings, root, "train", name="x", stage_params={}):
            raise error
    assert [run.info.status for run in runs(root)] == ["FAILED", "KILLED"]


def test_a_stage_that_is_interrupted_while_its_run_opens_is_killed(
    settings: TrackingParams, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow.log_params", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        tracked_run(settings, root, "train", name="x", stage_params={"train.lr": 0.1}),
    ):
        pytest.fail("the run is not open")
    assert [run.info.status for run in runs(root)] == ["KILLED"]


def test_disabled_tracking_writes_nothing(make_params: MakeParams, tmp_path: Path) -> None:
    train(make_params(**{"tracking.enabled": False}).tracking, tmp_path / "root", "abc")
    assert not (tmp_path / "root").exists()


def test_two_first_starts_at_once_share_one_store(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from ssd.params import TrackingParams
from ssd.tracking.run import tracked_run

settings = TrackingParams(enabled=True, experiment="ssd", run_name="", system_metrics=False, uri="")
with tracked_run(settings, Path(sys.argv[1]), "train", name="x", stage_params={}) as run:
    run.metrics({"a": 1.0})
assert run.id
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    assert len(runs(tmp_path)) == 2


def test_params_are_named_by_section() -> None:
    assert flat_params({"train": {"lr": 0.1}, "model": {"backbone": "x"}}) == {
        "train.lr": 0.1,
        "model.backbone": "x",
    }
