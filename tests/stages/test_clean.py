"""`make clean`: says what it frees before it does, and keeps what something refers to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from ssd.training.checkpoints import CheckpointFolder
from stages import clean
from stages.only_one import only_one


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository where DVC finds one unused object, which nothing deletes."""
    monkeypatch.chdir(tmp_path)
    unused = tmp_path / "unused"
    unused.write_bytes(bytes(3_000_000))
    monkeypatch.setattr(clean, "run_module", lambda command, root: f"Removing {unused}\nRemoved 1 objects")
    return tmp_path


@pytest.fixture
def listed(root: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def run(*arguments: str) -> list[str]:
        clean.main(arguments)
        return capsys.readouterr().out.splitlines()

    return run


def train(folder: Path, *, finished: bool) -> None:
    with CheckpointFolder(folder, 1) as opened:
        opened.save({"progress": {"finished": finished}}, step=1, final=finished)


def test_it_lists_sizes_and_deletes_nothing_unless_told_so(
    root: Path, listed: Callable[..., list[str]]
) -> None:
    train(root / "checkpoints/ended", finished=True)
    (root / "data").mkdir()
    (root / "data/.tensors.part").write_bytes(bytes(2_000_000))
    lines = [line.split(maxsplit=2) for line in listed()]
    assert [(float(size), unit) for size, unit, _ in lines] == [
        (0.0, "MB"),
        (2.0, "MB"),
        (3.0, "MB"),
        (5.0, "MB"),
    ]
    assert lines[0][2].endswith("checkpoints/ended")
    assert lines[1][2] == "half written: data/.tensors.part"
    assert lines[-1][2] == "can be freed: make clean YES=1"
    assert (root / "checkpoints/ended").exists() and (root / "data/.tensors.part").exists()
    assert listed("--yes")[-1].endswith("freed")
    assert not (root / "checkpoints/ended").exists() and not (root / "data/.tensors.part").exists()


def test_checkpoints_that_a_training_may_still_need_stay(
    root: Path, listed: Callable[..., list[str]]
) -> None:
    train(root / "checkpoints/killed", finished=False)
    train(root / "checkpoints/in-use", finished=True)
    train(root / "checkpoints/damaged", finished=True)
    (state,) = (root / "checkpoints/damaged").glob("step-*.pt")
    state.write_bytes(state.read_bytes()[:-1])
    with CheckpointFolder(root / "checkpoints/in-use", 1):
        listed("--yes")
    assert {path.name for path in (root / "checkpoints").iterdir()} == {"killed", "in-use", "damaged"}


def test_nothing_is_deleted_while_a_stage_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / ".dvc").mkdir()
    train(root / "checkpoints/ended", finished=True)
    with only_one("export"), pytest.raises(SystemExit) as stopped:
        clean.main(["--yes"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("another process runs export in this folder")
    assert (root / "checkpoints/ended").exists()


def test_what_was_deleted_in_mlflow_is_freed_unless_a_version_needs_it(
    empty_store: Path, root: Path, listed: Callable[..., list[str]]
) -> None:
    shutil.copytree(empty_store / "mlflow", root / "mlflow")
    client = MlflowClient(f"sqlite:///{root}/mlflow/mlflow.db")
    kept, deleted = (client.create_run("1") for _ in range(2))
    for run in (kept, deleted):
        folder = root / run.info.artifact_uri
        folder.mkdir(parents=True)
        (folder / "model.pt").write_bytes(bytes(4_000_000))
    client.delete_run(deleted.info.run_id)
    assert "       4.0 MB  runs and models that were deleted in MLflow: 1" in listed()
    client.create_registered_model("ssd")
    client.create_model_version("ssd", str(root), run_id=deleted.info.run_id)
    (line,) = (line for line in listed() if "MLflow" in line)
    assert line.startswith("kept: what was deleted in MLflow, as versions of models need it (ssd 1)")


def test_what_dvc_cannot_say_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        clean.UserError, match="`json.tool nowhere` failed: .*; run from the repository's root"
    ):
        clean.run_module(["json.tool", "nowhere"], tmp_path)
