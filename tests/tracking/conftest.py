"""A store for each test, copied from one that is made once: MLflow takes seconds for that."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd.params import Params, TrackingParams
from ssd.tracking.client import open_store


@pytest.fixture(autouse=True)
def no_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)


@pytest.fixture
def settings(make_params: Callable[..., Params]) -> TrackingParams:
    return make_params(**{"tracking.system_metrics": False}).tracking


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a store that has no run."""
    root = tmp_path_factory.mktemp("empty")
    settings = TrackingParams(enabled=True, experiment="ssd", run_name="", system_metrics=False, uri="")
    _, writer = open_store(settings, root)
    writer.gone()
    return root


@pytest.fixture
def root(empty_store: Path, tmp_path: Path) -> Path:
    """A repository of the test's own with such a store."""
    shutil.copytree(empty_store / "mlflow", tmp_path / "mlflow")
    return tmp_path
