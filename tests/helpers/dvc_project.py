"""A project of its own with a tiny params.yaml, and `dvc` in it as a user runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from default_params import REPOSITORY, default_content
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from waiting import finish

from ssd.files import sha256

Running = subprocess.Popen[str]

TINY = {
    **{"data.shapes_train": 24, "data.shapes_val": 8, "data.shapes_test": 8, "data.shapes_side": 96},
    **{"model.backbone": "shufflenet_v2_x0_5", "model.input_size": 64},
    **{"train.epochs": 4, "train.batch_size": 8, "train.warmup_steps": 2, "train.val_every": 1},
    **{"train.checkpoint_minutes": 1e-6, "export.num_images": 2, "report.num_pictures": 1},
    "tracking.system_metrics": False,
}
"""Seconds of work for every stage."""


def make_project(folder: Path, **changes: object) -> Path:
    """A copy of the working tree as a git repository with one commit; params are TINY, with these changes."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source, target = REPOSITORY / name, folder / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    set_params(folder, **changes)
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "-A"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "tiny"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def environment() -> dict[str, str]:
    """Variables of a plain shell, where bytecode is kept, with this Python first on the PATH."""
    others = ("DVC_", "MLFLOW_", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def start_python(project: Path, *arguments: str) -> Running:
    """`python -m ARGUMENTS` in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_python(project: Path, *arguments: str) -> str:
    """The same to its end, which is a good one; what it printed."""
    ended = finish(start_python(project, *arguments))
    assert ended.code == 0, ended.stdout
    return ended.stdout


def set_params(project: Path, **changes: object) -> None:
    """Write params.yaml: TINY, with changes like **{"train.lr": 0.1}."""
    content = default_content(**{**TINY, **changes})
    (project / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def run_of(project: Path) -> Run:
    """The run of the project's model; that of an experiment if the model comes from there."""
    digest = sha256(project / "models/model.pt")
    found = [run for run in mlflow_runs(project) if run.data.tags.get("model_sha256") == digest]
    return max(found, key=lambda run: "dvc_experiment" not in run.data.tags)


def mlflow_runs(project: Path) -> list[Run]:
    """All runs of the project, oldest first."""
    client = MlflowClient(f"sqlite:///{project / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ssd")
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]))
