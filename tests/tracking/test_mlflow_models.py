"""Model files by MLflow's URIs, and `model.weights` that names one."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from ssd.errors import UserError
from ssd.params import Params
from ssd.tracking.client import mlflow
from ssd.tracking.model_files import asked, fetch_model
from ssd.tracking.run import tracked_run
from stages.command import resolve_weights

Make = Callable[..., Params]


@pytest.fixture
def root(empty_store: Path, tmp_path: Path) -> Path:
    shutil.copytree(empty_store, tmp_path, dirs_exist_ok=True)
    return tmp_path


def log_model(root: Path, params: Params) -> str:
    """A run that has a model file; its id."""
    (root / "model.pt").write_bytes(b"weights")
    with tracked_run(params.tracking, root, "train", name="train", stage_params={}) as run:
        run.file(root / "model.pt", "model")
        run.outbox.send()
        found = run.id
    (root / "model.pt").unlink()
    return found


def test_a_run_and_a_registered_version_name_the_same_file(root: Path, make_params: Make) -> None:
    params = make_params(**{"tracking.system_metrics": False})
    run = log_model(root, params)
    client = mlflow().MlflowClient()
    client.create_registered_model("ssd")
    client.create_model_version("ssd", f"runs:/{run}/model", run)
    client.set_registered_model_alias("ssd", "champion", "1")
    uris = [f"runs:/{run}", f"runs:/{run}/model/model.pt", "models:/ssd/1", "models:/ssd@champion"]
    files = {fetch_model(uri, params.tracking, root, root / "copies") for uri in uris}
    assert files == {root / f"copies/{run}-model.pt"}
    assert [path.read_bytes() for path in (root / "copies").iterdir()] == [b"weights"]

    for uri, named in (
        ("runs:/none", "runs:/none: MLflow has no such file"),
        (f"runs:/{run}/none.pt", "MLflow has no such file"),
        ("models:/ssd", "say which version, as models:/ssd/1"),
        ("models:/ssd@best", "models:/ssd@best: MLflow refuses it: Registered model alias best not found"),
    ):
        with pytest.raises(UserError, match=named) as refused:
            fetch_model(uri, params.tracking, root, root / "copies")
        assert "\n" not in str(refused.value)

    wanted = make_params(**{"model.weights": f"runs:/{run}", "tracking.system_metrics": False})
    assert Path(resolve_weights(wanted, root)).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "not read from MLflow: .* No space left on device",
        ),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
        (MlflowException("too busy"), "MLflow failed: too busy"),
        (MlflowException("gone", RESOURCE_DOES_NOT_EXIST), "MLflow has no such file: gone"),
    ],
)
def test_a_failure_is_told_by_its_cause(
    root: Path, make_params: Make, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    monkeypatch.setattr("ssd.tracking.model_files.open_store", lambda *_: (_ for _ in ()).throw(error))
    with (
        pytest.raises(UserError, match=f"^runs:/a: .*{told}"),
        asked("runs:/a", make_params().tracking, root),
    ):
        pass


def test_a_bug_is_not_told_as_a_missing_file(
    root: Path, make_params: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd.tracking.model_files.open_store", lambda *_: ("1", None))
    with pytest.raises(AttributeError), asked("runs:/a", make_params().tracking, root):
        pass


def test_no_store_is_made_to_find_nothing_in_it(
    tmp_path: Path, make_params: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="^runs:/a: .* has no MLflow store; "):
        fetch_model("runs:/a", make_params().tracking, tmp_path, tmp_path / "copies")
    assert not (tmp_path / "mlflow").exists()


def test_a_path_counts_from_the_workspace_and_may_not_be_what_training_replaces(
    tmp_path: Path, make_params: Make
) -> None:
    assert resolve_weights(make_params(**{"model.weights": "imagenet"}), tmp_path) == "imagenet"
    assert resolve_weights(make_params(**{"model.weights": "a/b.pt"}), tmp_path) == str(tmp_path / "a/b.pt")
    with pytest.raises(UserError, match="DVC removes before training; copy it to another place"):
        resolve_weights(make_params(**{"model.weights": "models/../models/model.pt"}), tmp_path)
