"""A store for each test, copied from one that is made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd.params import Params, TrackingParams


@pytest.fixture(autouse=True)
def no_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)


@pytest.fixture
def settings(make_params: Callable[..., Params]) -> TrackingParams:
    return make_params(**{"tracking.system_metrics": False}).tracking


@pytest.fixture
def root(empty_store: Path, tmp_path: Path) -> Path:
    """A repository of the test's own with such a store."""
    shutil.copytree(empty_store / "mlflow", tmp_path / "mlflow")
    return tmp_path
