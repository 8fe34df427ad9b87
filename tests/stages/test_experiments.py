"""`dvc exp run --queue`: experiments in copies of the workspace, which log to the store of the original."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc_project import TINY, environment, make_project, mlflow_runs, run_python, set_params
from waiting import wait_until

from ssd.cross_validation import cross_validations
from ssd.files import sha256
from ssd.interrupt import StopSignal
from ssd.params import load_params
from ssd.tuning.space import distributions
from ssd.tuning.store import Store
from stages.dvc_files import recorded_digest
from stages.experiment import Ways, command_for_workspace
from stages.fold_models import fetch, num_left_out
from stages.folds import read_experiments, show_experiments
from stages.pool import PAUSE, Pool
from stages.search import Search


@pytest.mark.slow
def test_a_queued_experiment_and_a_search_are_in_the_store_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two folds of a cross-validation; the command that sums up says that the other is missing."""
    project = make_project(tmp_path / "project")
    changes = {"data.folds": 2, "data.fold": 1, "train.epochs": 1}
    settings = [word for key, value in changes.items() for word in ("-S", f"{key}={value}")]
    run_python(project, "dvc", "exp", "run", "--queue", *settings, "evaluate")
    # Its worker would hold a pipe open for some seconds after the last experiment.
    start = [sys.executable, "-m", "dvc", "queue", "start"]
    subprocess.run(start, cwd=project, env=environment(), stdout=subprocess.DEVNULL, check=True)
    # Asked of git, as `dvc queue status` would take the time of the trainings.
    wait_until(lambda: finished(project) != [], pause=0.5)
    (run,) = mlflow_runs(project)
    assert run.data.params["data.fold"] == "1"
    assert run.info.status == "FINISHED"
    assert "test/coco_map50" in run.data.metrics
    assert (project / run.info.artifact_uri / "model/model.pt").is_file(), "not in DVC's copy"
    name = run.data.tags["dvc_experiment"]
    assert name in run.info.run_name
    assert "training on cpu" in run_python(project, "dvc", "queue", "logs", name)
    run_python(project, "stages.folds")
    (summary,) = json.loads((project / "reports/folds.json").read_text())["cross_validations"]
    assert (summary["num_folds"], summary["missing"]) == (2, [0])
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", environment()["PATH"])  # for DVC, which runs `python`
    check_the_model_of_the_fold(run.data.tags["model_sha256"])
    set_params(project, **changes, **{"tune.trials": 2, "tune.space": {"train.lr": [0.002, 0.001]}})
    check_a_search(project)


def check_the_model_of_the_fold(digest: str) -> None:
    """DVC gives it back, to be fused with the others, and says how many images no fold has seen."""
    (found,) = cross_validations(read_experiments(show_experiments()))
    path = fetch(found.finished[1])
    assert (path.as_posix(), sha256(path)) == (f"models/folds/1-{digest[:8]}.pt", digest)
    assert num_left_out(found.finished[1]) == TINY["data.shapes_test"]
    assert len(recorded_digest("data/raw", found.finished[1].revision)) == len(f"{'0' * 32}.dir")
    assert recorded_digest("data/raw") == recorded_digest("data/nothing", "HEAD") == ""
    shutil.rmtree("models")


def check_a_search(project: Path) -> None:
    """Trials by DVC: the start, whose training the queue has run before, and one with another rate, which
    then comes into the workspace without being trained again.
    """
    params = load_params()
    store = Store(project / "checkpoints/tune/x/study.db", distributions(params))
    pool = Pool(2, Ways(), lambda: {"MLFLOW_RUN_ID": "0" * 32, "OMP_NUM_THREADS": "1"}, PAUSE)
    search = Search(params, "tune-x", project / "checkpoints/tune/x", store, pool)
    for _ in search.run(StopSignal()):
        pass
    trials = store.trials()
    store.close()
    assert [trial.user_attrs for trial in trials] == [
        {"values": {"train.lr": 0.002}},
        {"values": {"train.lr": 0.001}},
    ]
    assert all(list(trial.intermediate_values.values()) == [trial.value] for trial in trials)
    assert not (project / "models").exists(), "the workspace is left alone"
    _, trained = mlflow_runs(project)
    assert trained.data.tags["mlflow.parentRunId"] == "0" * 32
    assert trained.data.tags["dvc_experiment"] == "tune-x-1"
    taken_over = command_for_workspace(search.experiment(trials[1]))
    said = run_python(project, *shlex.split(taken_over), "train")
    assert "Stage 'train' is cached" in said
    assert sha256(project / "models/model.pt") == trained.data.tags["model_sha256"]


def finished(project: Path) -> list[str]:
    """The experiments that have a result, by git's references; a failed one is an error."""
    command = ["git", "for-each-ref", "--format=%(refname)", "refs/exps"]
    found = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in found if "failed" in name], run_python(project, "dvc", "queue", "status")
    return [name for name in found if re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/[\w-]+", name)]
