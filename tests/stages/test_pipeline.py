"""`dvc repro` from the download to the pictures; what a change runs again, experiments, what is shown."""

import base64
import contextlib
import json
import subprocess
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from dvc.cli import main as dvc
from dvc.repo import Repo
from dvc_project import kill, make_project, mlflow_runs, processes, run_python, set_params, start_python
from waiting import finish, wait_until

from ssd.files import sha256
from ssd.source.glyphs import GLYPHS
from stages import evaluate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which all stages have run."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    run_python(folder, "dvc", "repro")
    return folder


@pytest.fixture
def detector(project: Path) -> torch.jit.ScriptModule:
    return torch.jit.load(project / "models/export/ssd.torchscript.pt")


def test_every_promised_file_is_there(project: Path) -> None:
    for name in (
        "data/tensors/train.safetensors",
        "reports/preprocess/summary.json",
        "reports/preprocess/problems.json",
        "models/model.pt",
        "reports/train/history.tsv",
        "reports/train/priors.json",
        "reports/metrics.json",
        "reports/evaluate/precision_recall.tsv",
        "reports/evaluate/class_precision_recall.tsv",
        "reports/evaluate/detections.json",
        "reports/history.png",
        "reports/priors.png",
        "reports/augmentation.png",
        "reports/precision_recall.png",
        "reports/detections.png",
        "models/export/ssd.onnx",
        "models/export/ssd.torchscript.pt",
        "reports/export.json",
    ):
        assert (project / name).stat().st_size > 0, name
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert set(metrics["coco"]) == {"map", "map50", "map75"}
    assert set(metrics["voc"]) == {"map50_area", "map50_11point", "f1"}
    assert set(metrics["per_class"]) == set(GLYPHS)


def test_one_mlflow_run_holds_all_stages(project: Path) -> None:
    (run,) = mlflow_runs(project)
    assert run.info.status == "FINISHED"
    assert float(run.data.params["train.lr"]) > 0
    assert {"train/loss", "val/map50", "test/coco_map50", "test/voc_map50_area", "lr"} <= set(
        run.data.metrics
    )
    assert {"git_dirty", "mlflow.source.git.commit", "data_sha256_train", "model_sha256"} <= set(
        run.data.tags
    )
    artifacts = {path.name for path in (project / "mlflow" / "artifacts").rglob("*")}
    assert {"ssd.onnx", "ssd.torchscript.pt", "detections.png", "history.png", "per_class.json"} <= artifacts


def test_the_logged_model_detects_from_base64(project: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow' / 'mlflow.db'}")
    (run,) = mlflow_runs(project)
    (logged,) = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], output_format="list")
    model = mlflow.pyfunc.load_model(logged.model_uri)
    image = next((project / "data/raw/shapes/VOCdevkit/shapes/JPEGImages").iterdir())
    text = base64.b64encode(image.read_bytes()).decode()
    detections = model.predict(pd.DataFrame({"image": [text, text]}))["detections"]
    assert len(detections) == 2
    assert detections[0] == detections[1]
    for detection in detections[0]:
        assert detection["label"] in GLYPHS
        assert 0 <= detection["x1"] <= detection["x2"]


def test_the_exported_torchscript_file_needs_nothing_of_this_package(
    detector: torch.jit.ScriptModule,
) -> None:
    boxes, scores, labels, num_detections = detector(torch.zeros(2, 3, 50, 70, dtype=torch.uint8))
    assert boxes.shape[:2] == scores.shape == labels.shape
    assert num_detections.shape == (2,)


def changed(project: Path) -> set[str]:
    """The stages whose own deps, params or outputs differ from what they ran with, as DVC sees it."""
    with contextlib.chdir(project):
        return set(Repo().status())


def test_what_changed_runs_again_and_what_only_shows_is_drawn_again(project: Path) -> None:
    assert changed(project) == set()
    for name, stages in {
        "ssd/plots/figures.py": {"report"},
        "ssd/tracking.py": set(),
        "ssd/errors.py": set(),
        "ssd/params.py": set(),
        "stages/train_log.py": set(),
        "stages/evaluate.py": {"evaluate"},
        "ssd/export/onnx.py": {"export"},
        "ssd/loss.py": {"train", "evaluate"},
        "ssd/prepare/voc.py": {"preprocess"},
    }.items():
        before = (project / name).read_bytes()
        (project / name).write_bytes(before + b"# touched\n")
        assert changed(project) == stages, name
        (project / name).write_bytes(before)
    for key, value, stages in (
        ("report.num_pictures", 5, {"report"}),
        ("tracking.run_name", "mine", set()),
        ("evaluate.nms_iou", 0.5, {"evaluate"}),
        ("train.epochs", 5, {"train"}),
    ):
        set_params(project, **{key: value})
        assert changed(project) == stages, key
    set_params(project)


def test_a_change_of_evaluate_is_a_child_run_and_another_report(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_params(project, **{"evaluate.nms_iou": 0.3})
    monkeypatch.chdir(project)
    evaluate.main()
    parent, child = mlflow_runs(project)
    assert child.info.run_name == "evaluate evaluate.nms_iou=0.3"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert changed(project) == {"evaluate", "report"}
    set_params(project)
    assert "Running stage" not in run_python(project, "dvc", "repro"), "the cache has the former result"
    assert changed(project) == set()


@pytest.mark.parametrize("stage", ["evaluate", "export", "report"])
def test_a_stage_that_was_killed_is_restored_by_the_next_repro(project: Path, stage: str) -> None:
    outs = [
        project / name
        for name in ("reports/metrics.json", "models/export/ssd.onnx", "reports/detections.png")
    ]
    before = [sha256(path) for path in outs]
    running = start_python(project, "dvc", "repro", "--force", "--single-item", stage)
    wait_until(lambda: processes(running, f"stages.{stage}") != [], running)
    kill(running)
    assert stage in changed(project)
    run_python(project, "dvc", "repro")
    assert [sha256(path) for path in outs] == before


def test_a_queue_of_experiments_is_comparable_in_one_store(project: Path) -> None:
    """Two folds of a cross-validation, each trained by two processes; one command sums them up."""
    before = len(mlflow_runs(project))
    changes = {"data.folds": 2, "data.fold": "0,1", "train.epochs": 1, "train.devices": 2}
    settings = [word for key, value in changes.items() for word in ("-S", f"{key}={value}")]
    run_python(project, "dvc", "exp", "run", "--queue", *settings, "evaluate")
    queue = start_python(project, "dvc", "queue", "start")
    assert finish(queue).code == 0
    # Asked of git, as `dvc queue status` would take the time of the trainings.
    wait_until(lambda: len(refs(project, "exps")) - len(refs(project, "exps/celery")) == 2)
    runs = mlflow_runs(project)[before:]
    assert sorted(run.data.params["data.fold"] for run in runs) == ["0", "1"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params["train.devices"] == "2"
        assert "test/coco_map50" in run.data.metrics
        name = run.data.tags["dvc_experiment"]
        assert name in run.info.run_name
        assert "training on 2 processes, cpu" in run_python(project, "dvc", "queue", "logs", name)
    run_python(project, "stages.folds")
    (summary,) = json.loads((project / "reports/folds.json").read_text())["cross_validations"]
    assert (summary["num_folds"], summary["missing"]) == (2, [])


def refs(project: Path, kind: str) -> list[str]:
    """Git's references of DVC's experiments; a failed one is an error."""
    command = ["git", "for-each-ref", "--format=%(refname)", f"refs/{kind}"]
    found = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in found if "failed" in name], run_python(project, "dvc", "queue", "status")
    return found


def test_metrics_plots_and_dag_are_useful(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)

    def shown(*arguments: str) -> str:
        assert dvc(list(arguments)) == 0
        return capsys.readouterr().out

    assert "coco.map50" in shown("metrics", "show")
    assert "train" in shown("dag")
    set_params(project, **{"train.epochs": 3})
    assert "train.epochs" in shown("params", "diff")
    set_params(project)
    shown("plots", "show")
    assert "validation mAP@0.5, mAP and F1" in (project / "dvc_plots" / "index.html").read_text()
