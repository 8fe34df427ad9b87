"""The variables that an engine injects: the server, and the run that ours belongs to."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from ssd.params import Params, TrackingParams
from ssd.tracking.run import tracked_run

MakeParams = Callable[..., Params]


def log_stage(settings: TrackingParams, root: Path, stage: str = "train") -> str:
    with tracked_run(settings, root, stage, name="x", stage_params={}, model_digest="abc") as run:
        run.metrics({"loss": 1.0})
    assert run.id
    return run.id


@pytest.fixture
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store outside the workspace."""
    elsewhere = tmp_path_factory.mktemp("server") / "mlflow.db"
    (root / "mlflow/mlflow.db").rename(elsewhere)
    return f"sqlite:///{elsewhere}"


def test_a_run_that_is_named_is_the_parent_of_ours(
    settings: TrackingParams, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(f"sqlite:///{root / 'mlflow/mlflow.db'}")
    named = client.create_run("1").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", named)
    trained = log_stage(settings, root)
    monkeypatch.setenv("MLFLOW_RUN_ID", named)
    assert log_stage(settings, root, "evaluate") == trained
    run = client.get_run(trained)
    assert run.data.tags["mlflow.parentRunId"] == named
    assert run.data.metrics == {"loss": 1.0}
    assert client.get_run(named).data.metrics == {}


def test_a_run_tags_those_below_it_by_their_experiment_and_no_others(
    settings: TrackingParams, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    with tracked_run(
        settings, root, "tune", name="tune map50", stage_params={"tune.objective": "map50"}
    ) as run:
        found["parent"] = run.id
    client = MlflowClient(f"sqlite:///{root / 'mlflow/mlflow.db'}")
    for name in ("tune-x-1", "tune-x-2"):
        tags = {"dvc_experiment": name, "mlflow.parentRunId": found["parent"]}
        found[name] = client.create_run("1", tags=tags).info.run_id
    with tracked_run(settings, root, "tune", name="", stage_params={}, resume=found["parent"]) as run:
        run.tag_below("tune-x-1", {"pruned": "true"})
    runs = {name: client.get_run(run_id).data.tags for name, run_id in found.items()}
    assert [name for name, tags in runs.items() if tags.get("pruned") == "true"] == ["tune-x-1"]
    assert "A search for the highest validation `map50`" in runs["parent"]["mlflow.note.content"]


def test_the_server_that_is_named_holds_where_the_params_name_none(
    make_params: MakeParams, root: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run_id = log_stage(make_params(**{"tracking.system_metrics": False}).tracking, root)
    assert MlflowClient(server).get_run(run_id).data.metrics == {"loss": 1.0}
    assert not (root / "mlflow/mlflow.db").exists()


def test_the_server_of_the_params_comes_first(
    make_params: MakeParams, root: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    run_id = log_stage(make_params(**{"tracking.uri": server}).tracking, root)
    assert MlflowClient(server).get_run(run_id).data.metrics == {"loss": 1.0}


def test_no_server_is_passed_on_to_other_processes(
    settings: TrackingParams, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_stage(settings, root)
    assert "MLFLOW_TRACKING_URI" not in os.environ
