"""`make clean`: says what it frees before it does, and keeps what something refers to."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from default_params import default_text
from mlflow.tracking import MlflowClient

from ssd.training.checkpoints import CheckpointFolder
from stages import clean
from stages.only_one import only_one

DVC_YAML = """
stages:
  download: {outs: [data/raw]}
  preprocess: {outs: [data/tensors]}
  evaluate: {outs: [reports/evaluate], metrics: [reports/metrics.json]}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository where DVC finds one unused object, which nothing deletes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(default_text())
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    unused = tmp_path / "unused"
    unused.write_bytes(bytes(3_000_000))

    def answer(command: Sequence[str], root: Path) -> str:
        if command[1] == "cache":
            return f"{tmp_path / '.dvc/cache'}\n"
        return f"Removing {unused}\nRemoved 1 objects"

    monkeypatch.setattr(clean, "run_module", answer)
    return tmp_path


def write(path: Path, num_bytes: int = 1, *, minutes: float = 90) -> None:
    """A file that was last changed so long ago, as was its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    changed = path.stat().st_mtime - 60 * minutes
    for written in (path, path.parent):
        os.utime(written, (changed, changed))


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
    write(root / "data/.tensors.part", 2_000_000)
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


@pytest.mark.parametrize("copy", [".dvc/tmp/exps/tmpa1", ".dvc/tmp/exps/standalone/tmpb2"])
def test_nothing_is_deleted_while_a_stage_runs_in_the_copy_of_an_experiment(
    root: Path, capsys: pytest.CaptureFixture[str], copy: str
) -> None:
    (root / copy / ".dvc").mkdir(parents=True)
    train(root / "checkpoints/ended", finished=True)
    with only_one("evaluate", root / copy), pytest.raises(SystemExit) as stopped:
        clean.main(["--yes"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"another process runs evaluate in {root / copy} (")
    assert (root / "checkpoints/ended").exists()


def test_the_copy_of_an_experiment_is_found_where_the_project_is_below_git_s_root(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    project = tmp_path / "a/b [c]"
    copy = project / ".dvc/tmp/exps/standalone/tmpb2/a/b [c]"
    (copy / ".dvc").mkdir(parents=True)
    assert clean.copies(project) == [copy]


def test_the_cache_is_kept_while_an_experiment_may_run(root: Path, listed: Callable[..., list[str]]) -> None:
    (root / ".dvc/tmp/exps/tmpa1/.dvc").mkdir(parents=True)
    said, total = listed("--yes")
    assert said.startswith("kept: DVC's cache, as an experiment runs in .dvc/tmp/exps/tmpa1, or was killed")
    assert total.split() == ["0.0", "MB", "freed"]


def test_the_cache_is_kept_while_git_has_a_stash(root: Path, listed: Callable[..., list[str]]) -> None:
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    assert "that no commit, experiment or workspace has" in listed()[0]
    (root / ".git/refs/stash").write_text("1" * 40 + "\n")
    assert listed()[0].startswith("kept: DVC's cache, as git's stash may need it; `git stash pop`")


def test_a_cache_that_projects_share_is_kept(
    root: Path, listed: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean, "run_module", lambda command, root: "/srv/cache\n")
    said = listed()[0]
    assert said.startswith("kept: DVC's cache, as other projects may share /srv/cache; ")
    assert "`dvc gc --workspace --all-commits --all-experiments --projects" in said


def test_checkpoints_of_a_training_that_begins_after_the_list_stay(root: Path) -> None:
    train(root / "checkpoints/ended", finished=True)
    (waste,) = clean.checkpoints(root)
    with CheckpointFolder(root / "checkpoints/ended", 1):
        waste.delete()
    assert (root / "checkpoints/ended").exists()
    train(root / "checkpoints/ended", finished=False)
    waste.delete()
    assert (root / "checkpoints/ended").exists()


def test_only_what_the_stages_left_is_half_written(root: Path) -> None:
    for left in (
        "data/.tensors.old/a",
        "data/.raw.part/a",
        "reports/.metrics.json.part",
        "reports/evaluate/.curve.tsv.part",
        "checkpoints/.0a.old/step-00000001.pt",
    ):
        write(root / left)
    for kept in (
        "data/archives/.voc.tar.part",
        "data/own/.photos.part",
        "data/.mine.old",
        "reports/.audit.part/a",
        "data/raw/.theirs.old",
    ):
        write(root / kept)
    write(root / "reports/evaluate/.new.tsv.part", minutes=30)
    write(root / "data/.tensors.part/new", minutes=30)
    found = sorted(
        path.relative_to(root).as_posix() for waste in clean.half_written(root) for path in waste.paths
    )
    assert found == [
        "checkpoints/.0a.old",
        "data/.raw.part",
        "data/.tensors.old",
        "reports/.metrics.json.part",
        "reports/evaluate/.curve.tsv.part",
    ]


def test_downloads_and_own_data_are_never_half_written(root: Path) -> None:
    (root / "params.yaml").write_text(
        default_text(**{"data.archives": "reports/evaluate", "data.path": "data/.tensors.part"})
    )
    write(root / "reports/evaluate/.voc.tar.part")
    write(root / "data/.tensors.part/a.jpg")
    assert list(clean.half_written(root)) == []


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


def test_a_store_that_lacks_a_table_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "mlflow").mkdir()
    with closing(sqlite3.connect(root / "mlflow/mlflow.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    with pytest.raises(SystemExit) as stopped:
        clean.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "mlflow.db: no such table: logged_models; if an older MLflow made it" in said
    assert said.count("\n") == 1


def test_ctrl_c_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(root: Path, delete: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clean, "clean", interrupt)
    with pytest.raises(SystemExit) as stopped:
        clean.main()
    assert stopped.value.code == 130
    assert capsys.readouterr().err.startswith("stopped")


def test_what_dvc_cannot_say_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        clean.UserError, match="`json.tool nowhere` failed: .*; run from the repository's root"
    ):
        clean.run_module(["json.tool", "nowhere"], tmp_path)


def test_fetched_models_of_folds_go_unless_they_are_new_or_fused_or_of_the_user(root: Path) -> None:
    assert list(clean.fold_models(root)) == []
    folder, kept = root / "models/folds", ["1-2b2b2b2b.pt", "3-4d4d4d4d.pt", "mine.pt"]
    for name in ("0-1a1a1a1a.pt", ".0-1a1a1a1a.pt.part", *kept):
        write(folder / name, 5)
    write(folder / "2-3c3c3c3c.pt", 5, minutes=30)
    (root / "link").symlink_to(folder)
    fused = {"evaluate.models": ["models/best/../folds/1-2b2b2b2b.pt", "link/3-4d4d4d4d.pt"]}
    (root / "params.yaml").write_text(default_text(**fused))
    (waste,) = clean.fold_models(root)
    assert (waste.what, waste.num_bytes()) == (
        "models of folds that evaluate.models does not name: models/folds",
        10,
    )
    waste.delete()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*kept, "2-3c3c3c3c.pt"])


def test_packed_images_go_once_preprocess_has_run_after_them(root: Path) -> None:
    write(root / "data/packed/00000-of-00002.safetensors", 5, minutes=90)
    assert list(clean.packed_images(root)) == []
    write(root / "data/tensors/train/00000-of-00001.safetensors", minutes=100)
    os.utime(root / "data/tensors", (0, 0))
    assert list(clean.packed_images(root)) == []
    write(root / "data/tensors/train/00000-of-00001.safetensors", minutes=80)
    (waste,) = clean.packed_images(root)
    assert (waste.what, waste.num_bytes()) == (
        "packed images, which preprocess has read: data/packed",
        5,
    )
    waste.delete()
    assert sorted(path.name for path in (root / "data").iterdir()) == ["tensors"]
