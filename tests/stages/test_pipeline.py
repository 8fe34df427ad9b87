"""`dvc repro`, killed and stopped, to the pictures; what a change runs again, what is shown."""

import base64
import contextlib
import json
import re
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import torch
from dvc.cli import main as dvc
from dvc.repo import Repo
from dvc_project import TINY, mlflow_runs, run_of, run_python, set_params, start_python
from interrupted_pipeline import NUM_KILLS, Interrupted, run_interrupted
from mlflow.entities import LoggedModel
from mlflow.tracking import MlflowClient
from waiting import finish

from ssd.export.onnx import open_onnx
from ssd.source.glyphs import GLYPHS
from ssd.training.checkpoints import CheckpointFolder
from stages import evaluate, report, train
from stages.revision import lock_digest
from tests.torture.kills import Way, held_locks
from tests.torture.results import STAGES, results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    return run_interrupted(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def project(interrupted: Interrupted) -> Path:
    """A project in which all stages have run."""
    return interrupted.project


def test_killed_in_all_stages_in_all_ways_it_ends_with_the_bits_of_an_undisturbed_run(
    interrupted: Interrupted,
) -> None:
    """Without a traceback, an orphan or a lock that somebody still holds."""
    kills = interrupted.kills
    assert len(kills) == NUM_KILLS
    assert {kill.planned for kill in kills} == set(STAGES)
    assert {kill.way for kill in kills} == set(Way) - {Way.RANK}
    assert [kill for kill in kills if not kill.is_harmless] == [], f"seed {interrupted.seed}"
    assert held_locks(interrupted.project) == []


def test_a_stopped_training_says_so_and_the_next_one_resumes(interrupted: Interrupted) -> None:
    stopped = interrupted.stopped
    said = r"stopped at epoch \d, step \d; the next `dvc repro` resumes from there"
    assert re.search(said, stopped.output)
    assert stopped.run.info.status == "KILLED"
    assert "Running stage 'preprocess'" not in stopped.resumed_output
    assert "training resumes after epoch" in stopped.resumed_output
    (run,) = stopped.resumed_runs
    assert (run.info.run_id, run.info.status) == (stopped.run.info.run_id, "RUNNING")
    history = (interrupted.project / "reports/train/history.tsv").read_text().splitlines()
    assert len(history) == 1 + TINY["train.epochs"]


def test_a_second_training_in_the_same_folder_is_refused(interrupted: Interrupted) -> None:
    second = interrupted.stopped.second
    assert second.code == 2
    refused = rf"another process runs train in this folder \({interrupted.stopped.pid} on .*\); wait .*\n"
    assert re.fullmatch(refused, second.stderr)


def test_the_same_training_in_another_folder_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of an experiment, whose checkpoints are in the main workspace. No MLflow run is begun."""
    (checkpoints,) = (path for path in (project / "checkpoints").iterdir() if path.is_dir())
    runs = mlflow_runs(project)
    for name in (
        "params.yaml",
        "data/tensors/train/00000-of-00001.safetensors",
        "data/tensors/val/00000-of-00001.safetensors",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setattr(train, "__file__", str(project / "stages/train.py"))
    with CheckpointFolder(checkpoints, keep_best=1), pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 2
    refused = r"another training writes its checkpoints here \(process .*\); .*\n$"
    assert re.search(refused, capsys.readouterr().err)
    assert len(mlflow_runs(project)) == len(runs)


@pytest.fixture
def detector(project: Path) -> torch.jit.ScriptModule:
    return torch.jit.load(project / "models/export/ssd.torchscript.pt")


def test_every_promised_file_is_there(project: Path) -> None:
    for name in (
        "data/tensors/train/00000-of-00001.safetensors",
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
        "reports/confusion_matrix.png",
        "reports/detections.png",
        "reports/worst.png",
        "reports/index.html",
        "models/export/ssd.onnx",
        "models/export/ssd.torchscript.pt",
        "reports/export.json",
    ):
        assert (project / name).stat().st_size > 0, name
    origin = open_onnx(project / "models/export/ssd.onnx")[1]["origin"]
    assert origin["dvc_lock_sha256"] == lock_digest(project / "dvc.lock")
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert {"map", "map50", "map75", "map50_interval", "ar100", "map_small"} <= set(metrics["coco"])
    assert set(metrics["voc"]) == {"map_area", "map_11point", "map_11point_arange", "f1"}
    assert [figures["class"] for figures in metrics["per_class"]] == list(GLYPHS)


def test_one_mlflow_run_holds_all_stages(project: Path) -> None:
    run = run_of(project)
    assert run.info.status == "FINISHED"
    assert float(run.data.params["train.lr"]) > 0
    figures = {"test/coco_map50", "test/coco_map50_low", "test/coco_ar100", "test/voc_map_area"}
    assert figures | {"train/loss", "val/map50", "val/map75", "test/training_criterion_loss", "lr"} <= set(
        run.data.metrics
    )
    assert {"git_dirty", "mlflow.source.git.commit", "data_sha256_train", "model_sha256"} <= set(
        run.data.tags
    )
    assert "torchmetrics" in run.data.tags["figures_test"]
    artifacts = [path.name for path in (project / "mlflow" / "artifacts").rglob("*")]
    assert {"index.html", "detections.png", "history.png", "per_class.json"} <= set(artifacts)
    for large in ("model.pt", "ssd.torchscript.pt"):
        assert artifacts.count(large) == 1, large
    (model,) = logged_models(project)  # `mlflow gc` frees those of exports that were killed
    assert (model.status, model.name) == ("READY", "ssd-shufflenet_v2_x0_5-64")
    assert {item.tags[0].value for item in run.inputs.dataset_inputs} == {"train", "val", "test"}
    assert "| mAP@0.5 (COCO) |" in run.data.tags["mlflow.note.content"]


def logged_models(project: Path) -> list[LoggedModel]:
    """The models of the project's run."""
    run = run_of(project)
    client = MlflowClient(f"sqlite:///{project / 'mlflow' / 'mlflow.db'}")
    found = client.search_logged_models([run.info.experiment_id])
    return [model for model in found if model.source_run_id == run.info.run_id]


def test_the_logged_model_detects_from_base64(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)  # the paths in the store are relative
    store = f"sqlite:///{project / 'mlflow' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # which set_tracking_uri does, too, and leaves behind
    mlflow.set_tracking_uri(store)
    (logged,) = logged_models(project)
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
        "ssd/tracking/run.py": set(),
        "ssd/errors.py": set(),
        "ssd/params.py": {"check_params"},
        "ssd/params_errors.py": set(),
        "stages/train_log.py": set(),
        "stages/evaluate.py": {"evaluate"},
        "ssd/export/onnx.py": {"export"},
        "ssd/loss.py": {"train", "evaluate", "export"},
        "ssd/prepare/readers/voc.py": {"preprocess"},
    }.items():
        before = (project / name).read_bytes()
        (project / name).write_bytes(before + b"# touched\n")
        assert changed(project) == stages, name
        (project / name).write_bytes(before)
    for key, value, stages in (
        ("report.num_pictures", 5, {"report"}),
        ("tracking.run_name", "mine", set()),
        ("evaluate.nms_iou", 0.5, {"evaluate", "export"}),
        ("train.epochs", 5, {"train", "export", "report"}),
    ):
        set_params(project, **{key: value})
        assert changed(project) == {"check_params"} | stages, key
    set_params(project)


def test_a_mistake_in_the_params_costs_nothing(project: Path) -> None:
    """However DVC is told to run the stages, it touches nothing that was written."""
    before = results(project)
    unknown, negative = (
        "lr: unknown key (did you mean train.lr?)",
        "train.lr: found -1; allowed: greater than 0",
    )
    for command, changes, line, message in (
        (["repro"], {}, "lr: 0.1", unknown),  # a key that no stage reads
        (["repro", "evaluate"], {"train.lr": -1}, "", negative),
        (["exp", "run"], {"train.lr": -1}, "", negative),
    ):
        set_params(project, **changes)
        with (project / "params.yaml").open("a") as file:
            file.write(line)
        ended = finish(start_python(project, "dvc", *command))
        assert ended.code != 0, command
        assert f"params.yaml: {message}" in ended.stdout, command
        assert results(project) == before, command
    set_params(project)
    assert "Running stage" not in run_python(project, "dvc", "repro"), "the cache has all of it"
    assert changed(project) == set()


def test_a_change_of_evaluate_is_a_child_run_and_another_report_and_one_of_report_is_none(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_params(project, **{"evaluate.nms_iou": 0.3})
    monkeypatch.chdir(project)
    evaluate.main()
    set_params(project, **{"evaluate.nms_iou": 0.3, "report.num_pictures": 2})
    report.main()
    parent = run_of(project).info.run_id
    (child,) = (run for run in mlflow_runs(project) if run.data.tags.get("mlflow.parentRunId") == parent)
    assert child.info.run_name == "nms_iou=0.3 · evaluate"
    assert changed(project) == {"check_params", "evaluate", "export", "report"}
    set_params(project)
    assert "Running stage" not in run_python(project, "dvc", "repro"), "the cache has the former result"
    assert changed(project) == set()


def test_metrics_plots_and_dag_are_useful(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)

    def shown(*arguments: str) -> str:
        assert dvc(list(arguments)) == 0
        return capsys.readouterr().out

    figures = shown("metrics", "show")
    assert "coco.map50" in figures
    assert "definitions" not in figures, "they are in the file, not in the table"
    assert "train" in shown("dag")
    set_params(project, **{"train.epochs": 3})
    assert "train.epochs" in shown("params", "diff")
    set_params(project)
    shown("plots", "show")
    page = (project / "dvc_plots/index.html").read_text()
    assert "validation mAP@0.5, mAP@0.75, mAP and F1" in page
    assert "<script>" in page and "<script src" not in page, "its charts need no network"
    assert page.count("</script>") == page.count("<script")
