"""dvc.yaml against the code: deps are what a stage imports, params what it reads; and all five stages run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

import ssd.source.glyphs
from ssd.files import sha256
from ssd.training.checkpoints import CheckpointFolder

REPOSITORY = Path(__file__).parents[2]
NAMES = ["download", "preprocess", "train", "evaluate", "export", "report"]


def test_the_folder_mlflow_does_not_shadow_the_library() -> None:
    code = "import mlflow; print(mlflow.__version__)"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert re.match(r"\d+\.\d+", result.stdout)
    assert not list((REPOSITORY / "mlflow").glob("*.py"))


def test_the_package_trains_without_dvc_and_mlflow() -> None:
    """Everything of `ssd` but tracking (and the file that MLflow runs) imports where neither is installed."""
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in (REPOSITORY / "ssd").rglob("*.py")
        if path.name not in ("__init__.py", "tracking.py", "pyfunc_model.py", "onnx.py", "compare.py")
    ]
    code = f"import sys; sys.modules.update(mlflow=None, dvc=None)\nfor name in {modules}: __import__(name)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


TINY = {
    "data": {"shapes_train": 24, "shapes_val": 8, "shapes_test": 8, "shapes_side": 96},
    "model": {"backbone": "resnet18", "input_size": 64},
    "train": {"epochs": 4, "batch_size": 8, "warmup_steps": 2, "val_every": 1, "checkpoint_minutes": 1e-6},
    "export": {"num_images": 2},
    "report": {"num_pictures": 4},
    "tracking": {"system_metrics": False},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the working tree with a tiny params.yaml, as a git repository of its own."""
    folder = tmp_path_factory.mktemp("project")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = REPOSITORY / name, folder / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in TINY.items():
        params[section].update(values)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "tiny"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def environment() -> dict[str, str]:
    """Variables of a plain shell with this Python first on the PATH."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def dvc(project: Path, *arguments: str) -> str:
    """Run dvc in the project; what it and its stages printed."""
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def reproduced(project: Path) -> Path:
    dvc(project, "repro")
    return project


def edit(project: Path, old: str, new: str) -> None:
    path = project / "params.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def mlflow_runs(project: Path) -> list:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{project / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ssd")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


@pytest.mark.slow
def test_every_promised_file_is_there(reproduced: Path) -> None:
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
        assert (reproduced / name).stat().st_size > 0, name
    metrics = json.loads((reproduced / "reports/metrics.json").read_text())
    assert set(metrics["coco"]) == {"map", "map50", "map75"}
    assert set(metrics["voc"]) == {"map50_area", "map50_11point", "f1"}
    assert set(metrics["per_class"]) == set(ssd.source.glyphs.GLYPHS)


@pytest.mark.slow
def test_one_mlflow_run_holds_all_stages(reproduced: Path) -> None:
    (run,) = mlflow_runs(reproduced)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.001" or float(run.data.params["train.lr"]) > 0
    assert {"train/loss", "val/map50", "test/coco_map50", "test/voc_map50_area", "lr"} <= set(
        run.data.metrics
    )
    assert {"git_dirty", "mlflow.source.git.commit", "data_sha256_train", "model_sha256"} <= set(
        run.data.tags
    )
    artifacts = {path.name for path in (reproduced / "mlflow" / "artifacts").rglob("*")}
    assert {"ssd.onnx", "ssd.torchscript.pt", "detections.png", "history.png", "per_class.json"} <= artifacts


@pytest.mark.slow
def test_the_logged_model_detects_from_base64(reproduced: Path) -> None:
    import base64

    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(f"sqlite:///{reproduced / 'mlflow' / 'mlflow.db'}")
    (run,) = mlflow_runs(reproduced)
    (logged,) = mlflow.search_logged_models(experiment_ids=[run.info.experiment_id], output_format="list")
    model = mlflow.pyfunc.load_model(logged.model_uri)
    image = next((reproduced / "data/raw/shapes/VOCdevkit/shapes/JPEGImages").iterdir())
    text = base64.b64encode(image.read_bytes()).decode()
    detections = model.predict(pd.DataFrame({"image": [text, text]}))["detections"]
    assert len(detections) == 2
    assert detections[0] == detections[1]
    for detection in detections[0]:
        assert detection["label"] in ssd.source.glyphs.GLYPHS
        assert 0 <= detection["x1"] <= detection["x2"]


@pytest.mark.slow
def test_nothing_changed_runs_nothing(reproduced: Path) -> None:
    assert "Running stage" not in dvc(reproduced, "repro")


@pytest.mark.slow
def test_a_change_of_evaluate_runs_evaluate_and_report_and_is_a_child_run(reproduced: Path) -> None:
    edit(reproduced, "score_threshold: 0.01", "score_threshold: 0.02")
    output = dvc(reproduced, "repro")
    assert re.findall(r"Running stage '(\w+)'", output) == ["evaluate", "report"]
    child = mlflow_runs(reproduced)[-1]
    assert child.info.run_name == "evaluate evaluate.score_threshold=0.02"
    assert child.data.tags["mlflow.parentRunId"] == mlflow_runs(reproduced)[0].info.run_id
    edit(reproduced, "score_threshold: 0.02", "score_threshold: 0.01")
    assert "Running stage" not in dvc(reproduced, "repro"), "the run cache knows the former result"


@pytest.mark.slow
def test_a_queue_of_experiments_is_comparable_in_one_store(reproduced: Path) -> None:
    """Two folds of a cross-validation; one command sums them up."""
    before = len(mlflow_runs(reproduced))
    changes = ("-S", "data.folds=2", "-S", "data.fold=0,1", "-S", "train.epochs=1")
    dvc(reproduced, "exp", "run", "--queue", *changes, "evaluate")
    dvc(reproduced, "queue", "start")
    deadline = time.monotonic() + 250
    while re.search("Queued|Running", dvc(reproduced, "queue", "status")) and time.monotonic() < deadline:
        time.sleep(3)
    runs = mlflow_runs(reproduced)[before:]
    assert sorted(run.data.params["data.fold"] for run in runs) == ["0", "1"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert "test/coco_map50" in run.data.metrics
        assert run.data.tags["dvc_experiment"] in run.info.run_name
    command = [sys.executable, "-m", "stages.folds"]
    subprocess.run(command, cwd=reproduced, env=environment(), check=True, capture_output=True)
    (summary,) = json.loads((reproduced / "reports/folds.json").read_text())["cross_validations"]
    assert (summary["num_folds"], summary["missing"]) == (2, [])


@pytest.mark.slow
def test_metrics_plots_and_dag_are_useful(reproduced: Path) -> None:
    assert "coco.map50" in dvc(reproduced, "metrics", "show")
    assert "train" in dvc(reproduced, "dag")
    edit(reproduced, "  epochs: 4", "  epochs: 3")
    assert "train.epochs" in dvc(reproduced, "params", "diff")
    edit(reproduced, "  epochs: 3", "  epochs: 4")
    dvc(reproduced, "plots", "show")
    page = (reproduced / "dvc_plots" / "index.html").read_text()
    assert "validation mAP@0.5, mAP and F1" in page


@pytest.mark.slow
def test_the_exported_torchscript_file_needs_nothing_of_this_package(reproduced: Path) -> None:
    detector = torch.jit.load(reproduced / "models/export/ssd.torchscript.pt")
    boxes, scores, labels, num_detections = detector(torch.zeros(2, 3, 50, 70, dtype=torch.uint8))
    assert boxes.shape[:2] == scores.shape == labels.shape
    assert num_detections.shape == (2,)


OUTS = ["data/tensors/train.safetensors", "models/model.pt", "reports/metrics.json", "models/export/ssd.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [name for name in NAMES if name != "train"])
def test_kill_9_in_the_middle_of_a_stage_is_mended_by_the_next_repro(reproduced: Path, stage: str) -> None:
    """The stage and DVC die together, as in a power cut; the next run ends with the same bits."""
    before = {name: sha256(reproduced / name) for name in OUTS}
    kill(start_again(reproduced, stage), stage, reproduced)
    dvc(reproduced, "repro")
    assert {name: sha256(reproduced / name) for name in OUTS} == before


@pytest.mark.slow
def test_training_stopped_by_sigterm_and_by_kill_9_goes_on_to_the_same_bits(reproduced: Path) -> None:
    """As a spot instance is taken back, or Kubernetes moves a pod; then a power cut."""
    before = {name: sha256(reproduced / name) for name in OUTS}
    shutil.rmtree(reproduced / "checkpoints")
    running = start_again(reproduced, "train")
    wait_for_stage(running.pid, "train", reproduced).send_signal(signal.SIGTERM)
    output, _ = running.communicate(timeout=100)
    assert re.search(r"stopped at epoch \d, step \d; the next `dvc repro` goes on from there", output)
    stopped = mlflow_runs(reproduced)[-1]
    assert stopped.info.status == "KILLED"

    kill(start_again(reproduced, "train"), "train", reproduced)
    # DVC itself would take what it knows from its run cache.
    assert "going on after epoch" in dvc(reproduced, "repro", "--force", "--single-item", "train")
    assert {name: sha256(reproduced / name) for name in OUTS} == before
    ended = mlflow_runs(reproduced)[-1]
    assert ended.info.run_id == stopped.info.run_id
    assert ended.info.status == "FINISHED"
    assert len((reproduced / "reports/train/history.tsv").read_text().splitlines()) == 1 + 4


def kill(running: subprocess.Popen[str], stage: str, project: Path) -> None:
    """SIGKILL to DVC and the stage, in the middle of its work."""
    try:
        wait_for_stage(running.pid, stage, project)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def start_again(project: Path, stage: str) -> subprocess.Popen[str]:
    """Start a stage that has run before."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", stage],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_second_training_of_the_same_is_refused(reproduced: Path) -> None:
    (folder,) = (path for path in (reproduced / "checkpoints").iterdir() if any(path.glob("best-*.pt")))
    num_runs = len(mlflow_runs(reproduced))
    with CheckpointFolder(folder, keep_best=1):
        second = subprocess.run(
            [sys.executable, "-m", "stages.train"],
            cwd=reproduced,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert second.returncode == 2
    assert re.fullmatch(r".*another training writes its checkpoints here \(process .*\); .*\n", second.stderr)
    assert len(mlflow_runs(reproduced)) == num_runs


@pytest.mark.slow
def test_two_processes_train_evaluate_and_export(reproduced: Path) -> None:
    output = dvc(reproduced, "exp", "run", "--temp", "-S", "train.devices=2")
    assert "2 processes" in output
    assert mlflow_runs(reproduced)[-1].info.status == "FINISHED"


def wait_for_stage(pid: int, stage: str, project: Path) -> psutil.Process:
    """The process of the stage, in the middle of its work."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children(recursive=True):
            if not runs(child, f"stages.{stage}"):
                continue
            if stage != "train":
                time.sleep(3)  # its imports
                return child
            if any(project.glob("checkpoints/*/step-*.pt")):
                return child
        time.sleep(0.02)
    raise AssertionError(f"{stage} did not start")


def runs(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.NoSuchProcess:  # it has just ended
        return False
