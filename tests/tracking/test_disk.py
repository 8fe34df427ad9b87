"""A store that is moved, copied or mounted elsewhere keeps its files, and takes new ones where it is."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking import MlflowClient

from ssd.params import TrackingParams
from ssd.tracking.disk import absolute_location, make_locations_relative, relative_location
from ssd.tracking.run import tracked_run

Log = Callable[[Path, str], str]


@pytest.fixture
def log(settings: TrackingParams, tmp_path: Path) -> Log:
    """log(root, "a.txt"): log a file into the run of the model; its id."""

    def log(root: Path, name: str) -> str:
        file = tmp_path / name
        file.write_text(name)
        with tracked_run(settings, root, "export", name="x", stage_params={}, model_digest="abc") as run:
            run.file(file)
        assert run.id
        return run.id

    return log


@pytest.fixture
def repository(root: Path) -> Path:
    """With a store, in a folder of its own whose name needs quoting in a URI."""
    folder = root / "my #1 project"
    folder.mkdir()
    return Path(shutil.move(root / "mlflow", folder / "mlflow")).parent


def files(root: Path) -> list[str]:
    """All artifacts on disk."""
    return sorted(path.name for path in (root / "mlflow" / "artifacts").rglob("*.txt"))


def listed(root: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The artifacts of a run, as MLflow sees them where it is started in the repository."""
    monkeypatch.chdir(root)
    run = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db").get_run(run_id)
    repository = LocalArtifactRepository(run.info.artifact_uri)
    names = [item.path for item in repository.list_artifacts()]
    for name in names:
        assert Path(repository.download_artifacts(name)).read_text() == name
    return names


def test_a_moved_repository_keeps_its_files_and_takes_new_ones_there(
    repository: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = log(repository, "before.txt")
    moved = repository.rename(repository.with_name("moved"))
    assert listed(moved, run_id, monkeypatch) == ["before.txt"], "before anything of ours has opened it"
    forget_open_stores()
    assert log(moved, "after.txt") == run_id
    assert listed(moved, run_id, monkeypatch) == ["after.txt", "before.txt"]
    assert not repository.exists()


def test_a_copy_leaves_the_original_alone(
    repository: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = log(repository, "before.txt")
    copy = Path(shutil.copytree(repository, repository.with_name("copy")))
    forget_open_stores()
    assert log(copy, "after.txt") == run_id
    assert files(copy) == listed(copy, run_id, monkeypatch) == ["after.txt", "before.txt"]
    assert files(repository) == listed(repository, run_id, monkeypatch) == ["before.txt"]


def forget_open_stores() -> None:
    """As in a new process: MLflow remembers where each run's artifacts are."""
    mlflow.tracking._tracking_service.utils._artifact_repos_cache.clear()


def test_a_store_with_absolute_locations_is_mended(root: Path, log: Log) -> None:
    """As MLflow writes them; the container's is another root than the host's."""
    run_id = log(root, "a.txt")
    below = f"{run_id}/artifacts"
    changes = {
        ("experiments", "artifact_location"): ("file:///app/mlflow/artifacts", "mlflow/artifacts"),
        ("runs", "artifact_uri"): (
            f"file:///home/a%20b/mlflow/artifacts/{below}",
            f"mlflow/artifacts/{below}",
        ),
    }
    with closing(sqlite3.connect(root / "mlflow" / "mlflow.db")) as connection:
        for (table, column), (old, _) in changes.items():
            connection.execute(f"UPDATE {table} SET {column} = ?", [old])
        elsewhere = "s3://bucket/mlflow/artifacts"
        connection.execute(
            f"UPDATE experiments SET artifact_location = '{elsewhere}' WHERE experiment_id = 0"
        )
        connection.commit()
        make_locations_relative(root)
        for (table, column), (_, new) in changes.items():
            assert (new,) in connection.execute(f"SELECT {column} FROM {table}").fetchall()
        kept = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0")
        assert kept.fetchone() == (elsewhere,)
    assert log(root, "b.txt") == run_id
    assert files(root) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("location", "relative"),
    [
        ("file:///home/me/project/mlflow/artifacts", "mlflow/artifacts"),
        ("file:///mlflow/artifacts/ID/artifacts", "mlflow/artifacts/ID/artifacts"),
        ("/app/mlflow/artifacts/models/m-1/artifacts", "mlflow/artifacts/models/m-1/artifacts"),
        ("file:///a/mlflow/artifacts/b/mlflow/artifacts/ID", "mlflow/artifacts/ID"),
        ("mlflow/artifacts/ID/artifacts", "mlflow/artifacts/ID/artifacts"),
        ("file:///home/me/mlflow/artifacts2/ID", "file:///home/me/mlflow/artifacts2/ID"),
        ("file:///home/me/mlruns/0", "file:///home/me/mlruns/0"),
        ("mlflow-artifacts:/1", "mlflow-artifacts:/1"),
        ("s3://bucket/mlflow/artifacts/ID", "s3://bucket/mlflow/artifacts/ID"),
        ("models:/m-1", "models:/m-1"),
    ],
)
def test_only_locations_in_a_store_of_ours_become_relative(location: str, relative: str) -> None:
    assert relative_location(location) == relative


def test_a_relative_location_counts_from_the_root(tmp_path: Path) -> None:
    root = tmp_path / "a b"
    assert absolute_location("mlflow/artifacts/ID", root) == (root / "mlflow/artifacts/ID").as_uri()
    for other in ("models/export/ssd.onnx", "mlflow/artifacts2", "file:///x", str(tmp_path)):
        assert absolute_location(other, root) == other
