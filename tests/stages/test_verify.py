"""`make verify`: a clone of the commit, what is lent to it, and the comparison. What is run is a stand-in."""

import errno
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from default_params import default_params, default_text

from ssd.errors import UserError
from ssd.tracking.model_files import fetch_model
from stages import verify
from stages.revision import Revision, revision
from stages.same_bytes import lasting, lasting_sha256

PIPELINE = {
    "download": {"outs": ["data/raw"]},
    "preprocess": {"outs": ["data/tensors"]},
    "train": {"outs": ["models/model.pt", "reports/train"]},
    "evaluate": {"outs": ["reports/evaluate"], "metrics": ["reports/metrics.json"]},
    "export": {"outs": ["reports/export.json"]},
    "report": {"outs": ["reports/a.png"]},
}
PARAMS = {
    "data": {"path": "data/own", "archives": "data/archives"},
    "model": {"weights": "none"},
    "evaluate": {"models": ["models/folds/0-1a.pt"]},
    "tracking": {"enabled": True},
}
HISTORY = "epoch\tseconds\ttrain_loss\n0\t{}\t{}\n"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_results(root: Path, seconds: float = 1, loss: float = 2) -> None:
    """What the stages would write."""
    for index in range(20):
        write(root / f"data/raw/{index}.jpg", f"picture {index}")
    write(root / "data/tensors/test/00000-of-00001.safetensors", "tensors")
    write(root / "models/model.pt", "weights")
    write(root / "reports/train/history.tsv", HISTORY.format(seconds, loss))
    write(root / "reports/metrics.json", "{}")
    write(root / "reports/evaluate/detections.json", "[]")
    exported = {"latency_ms": seconds, "bytes": seconds, "num_matched": 7}
    write(root / "reports/export.json", json.dumps({"ssd.onnx": exported}))


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    write(root / "dvc.yaml", yaml.safe_dump({"stages": PIPELINE}))
    write(root / "params.yaml", yaml.safe_dump(PARAMS))
    write(root / ".gitignore", "/data/\n/models/\n/reports/\n/.dvc/config.local\n")
    write(root / ".dvc/config", "")
    write(root / "ssd/a.py", "")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    write_results(root)
    return root


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Path], None]], list[Path]]]:
    """run(stand_in): what the pipeline does in its clone; the clones that it was run in."""
    clones: list[Path] = []

    def set_pipeline(stand_in: Callable[[Path], None]) -> list[Path]:
        def run_pipeline(clone: Path) -> None:
            clones.append(clone)
            stand_in(clone)

        monkeypatch.setattr(verify, "run_pipeline", run_pipeline)
        return clones

    yield set_pipeline
    assert not any(clone.exists() for clone in clones)


Run = Callable[[Callable[[Path], None]], list[Path]]


def test_the_same_results_at_another_speed_are_the_same(project: Path, run: Run) -> None:
    clones = run(lambda clone: write_results(clone, seconds=3))
    rows = verify.verify(project)
    assert all(row.same for row in rows)
    assert [(row.stage, row.name) for row in rows] == [
        ("download", "data/raw (20 files)"),
        ("preprocess", "data/tensors/test/00000-of-00001.safetensors"),
        ("train", "models/model.pt"),
        ("train", "reports/train/history.tsv"),
        ("evaluate", "reports/evaluate/detections.json"),
        ("evaluate", "reports/metrics.json"),
        ("export", "reports/export.json"),
    ]
    assert len(clones) == 1


def test_what_differs_or_is_missing_is_named(
    project: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def otherwise(clone: Path) -> None:
        write_results(clone, loss=3)
        write(clone / "data/raw/3.jpg", "another picture")
        (clone / "models/model.pt").unlink()

    run(otherwise)
    monkeypatch.chdir(project)
    with pytest.raises(SystemExit) as ended:
        verify.main()
    assert ended.value.code == 1
    said = capsys.readouterr().out
    different = [line.split()[1] for line in said.splitlines() if line.endswith(" NO")]
    assert different == ["data/raw", "models/model.pt", "reports/train/history.tsv"]
    assert " missing " in said
    assert said.endswith("3 of 7 differ\n")


def test_the_clone_is_the_commit_with_nothing_but_what_git_does_not_keep(project: Path, run: Run) -> None:
    write(project / "data/own/a.jpg", "a picture")
    write(project / "models/folds/0-1a.pt", "a model")
    write(project / "dvc.lock", "of other results")
    seen: dict[str, object] = {}

    def look(clone: Path) -> None:
        seen["files"] = sorted(
            path.relative_to(clone).as_posix()
            for path in clone.rglob("*")
            if ".git" not in path.parts and not path.is_dir()
        )
        seen["params"] = yaml.safe_load((clone / "params.yaml").read_text())
        seen["own"] = (clone / "data/own/a.jpg").read_text()
        seen["model"] = (clone / "models/folds/0-1a.pt").read_text()
        seen["cache"] = (clone / ".dvc/config.local").read_text()
        write_results(clone)

    run(look)
    verify.verify(project)
    committed = {".dvc/config", ".dvc/config.local", ".gitignore", "dvc.yaml", "params.yaml", "ssd/a.py"}
    lent = {"data/own", "models/folds/0-1a.pt"}
    assert set(seen["files"]) - lent == committed  # type: ignore[call-overload]
    assert seen["model"] == "a model"
    assert seen["own"] == "a picture"
    assert seen["params"] == {**PARAMS, "tracking": {"enabled": False}}
    assert "dir = cache" in str(seen["cache"])
    assert (project / "data/own/a.jpg").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: write(root / "params.yaml", "{}"),
            "^params.yaml: not as in the commit .*; commit or stash it",
        ),
        (lambda root: write(root / "ssd/new.py", ""), "^ssd/new.py: not as in the commit"),
        (
            lambda root: (root / "models/model.pt").unlink(),
            "^models/model.pt is not here.*run `dvc repro` first",
        ),
    ],
)
def test_what_is_no_commit_with_results_is_refused(
    project: Path, run: Run, change: Callable[[Path], None], message: str
) -> None:
    clones = run(write_results)
    change(project)
    with pytest.raises(UserError, match=message):
        verify.verify(project)
    assert clones == []


def test_a_run_that_fails_is_no_difference(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write(project / "dvc.yaml", "stages: {export: {cmd: 'false', outs: [reports/export.json]}}")
    git(project, "commit", "-aqm", "fails")
    monkeypatch.setattr(verify, "outputs", lambda root: [("export", "reports/export.json")])
    with pytest.raises(UserError, match="does not run from nothing"):
        verify.verify(project)
    assert "export" in capfd.readouterr().err


def test_the_revision_of_what_is_no_repository_is_not_known(project: Path, tmp_path: Path) -> None:
    """Nor that of a package within the environment of another repository."""
    assert revision(tmp_path) is None
    assert revision(project / "ssd") is None
    found = revision(project)
    assert found is not None
    assert (len(found.commit), found.changed) == (40, [])
    write(project / "README.md", "no input")
    write(project / "dvc.lock", "no input")
    assert revision(project) == found


def test_a_changed_file_may_have_a_name_that_is_no_utf_8(project: Path) -> None:
    name = os.fsdecode(b"ssd/\xff.py")
    write(project / name, "")
    found = revision(project)
    assert found is not None and found.changed == [name]


def test_times_of_the_history_do_not_last(tmp_path: Path) -> None:
    path = tmp_path / "history.tsv"
    path.write_text(HISTORY.format(9.5, 0.25))
    assert lasting(path) == b"epoch\ttrain_loss\n0\t0.25"


def test_a_large_file_is_not_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.safetensors"
    path.write_bytes(b"tensors")
    monkeypatch.delattr(Path, "read_bytes")
    assert lasting_sha256(path) == hashlib.sha256(b"tensors").hexdigest()


def test_a_model_of_a_run_is_lent_under_the_name_that_the_clone_looks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root, clone = tmp_path / "root", tmp_path / "clone"
    write(root / "params.yaml", default_text())
    write(root / "checkpoints/weights/abc-model.pt", "weights")
    monkeypatch.setattr(
        verify, "resolve_model", lambda uri, settings, at: at / "checkpoints/weights/abc-model.pt"
    )
    verify.lend_from_mlflow(root, clone, "model.weights", "runs:/abc")
    found = fetch_model("runs:/abc", default_params().tracking, clone, clone / "checkpoints/weights")
    assert found.read_text() == "weights", "without the store, which the clone lacks"


def test_a_model_of_the_registry_is_refused_unless_a_server_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(tmp_path / "params.yaml", default_text())
    wanted = ("evaluate.models", "models:/ssd/1")
    told = "^params.yaml: evaluate.models: make verify cannot lend models:/ssd/1"
    with pytest.raises(UserError, match=told):
        verify.lend_from_mlflow(tmp_path, tmp_path / "clone", *wanted)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    verify.lend_from_mlflow(tmp_path, tmp_path / "clone", *wanted)


def test_a_clone_that_fails_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    (commit,) = (project / ".git/refs/heads").iterdir()
    digest = commit.read_text().strip()
    monkeypatch.setattr(verify, "revision", lambda root: Revision(digest[::-1], []))
    with pytest.raises(SystemExit) as ended:
        verify.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"the commit {digest[::-1][:12]} cannot be cloned into ")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), FileNotFoundError("No usable")])
def test_no_room_for_the_clone_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError
) -> None:
    def fail(prefix: str) -> None:
        raise error

    monkeypatch.chdir(project)
    monkeypatch.setattr(verify.tempfile, "TemporaryDirectory", fail)
    with pytest.raises(SystemExit) as ended:
        verify.main()
    assert ended.value.code == 2
    assert "make room" in capsys.readouterr().err
