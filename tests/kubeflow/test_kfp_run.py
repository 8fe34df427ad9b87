"""The committed pipeline through kfp's local runner, with stages that take no time.

`make kfp-test` runs it with the real ones: tests/kubeflow/full_run.py.
"""

from pathlib import Path

import pytest
from kfp_runs import quick_project, run_pipeline
from quick_stage import SAMPLES

from artifacts import ARTIFACTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quick_project(tmp_path_factory.mktemp("project"))


def test_all_steps_run_and_leave_their_typed_artifacts(project: Path, tmp_path: Path) -> None:
    run = run_pipeline(project, "pipeline.yaml", tmp_path, settings=["train.lr=0.001", "preprocess.shards=2"])
    assert run.code == 0, run.log
    for stage in SAMPLES:
        assert run.log.count(f"Running stage '{stage}'") == 1
        assert set(run.outputs(stage)) == {artifact.name for artifact in ARTIFACTS.get(stage, [])}
    assert "found: packed 0, packed 1\n" in run.log
    assert run.artifact("train", "model").read_text() == "weights"
    assert run.artifact("export", "onnx").read_text() == "onnx"
    assert run.outputs("train")["training"]["metadata"] == {"epoch": 2, "train_loss": 7.5, "val_map50": 0.25}
    assert run.outputs("evaluate")["metrics"]["metadata"] == {"coco_map50": 0.25}
    assert run.outputs("evaluate")["confusion"]["metadata"]["confusionMatrix"] == {
        "annotationSpecs": [
            {"displayName": name} for name in ("cat", "dog", "background (row), missed (column)")
        ],
        "rows": [{"row": row} for row in ([7, 1, 2], [0, 5, 0], [3, 4, 0])],
    }
    assert run.outputs("export")["comparison"]["metadata"] == {"ssd_onnx_latency_ms": 1.5}
    assert run.outputs("preprocess")["tensors"]["metadata"] == {"num_files": 3, "bytes": 12}
    assert "5\tshapes/a.jpg" in run.artifact("download", "raw").read_text()
    assert "- few images" in run.artifact("preprocess", "account").read_text()
    assert run.artifact("report", "pictures").read_text() == "<!DOCTYPE html>"


def test_a_failing_step_is_retried_then_it_fails_the_run_and_no_other_begins(
    project: Path, tmp_path: Path
) -> None:
    committed = (project / "kubeflow/pipeline.yaml").read_text()
    at_once = committed.replace("backoffDuration: 30s", "backoffDuration: 0s")
    (project / "kubeflow/retries-at-once.yaml").write_text(at_once)
    run = run_pipeline(project, "retries-at-once.yaml", tmp_path, settings=["train.rl=0.001"])
    assert run.code != 0
    assert run.log.count("settings: train.rl: params.yaml has no such key") == 3
    assert "Running stage" not in run.log
    assert not list(tmp_path.glob("artifacts/*/download"))
