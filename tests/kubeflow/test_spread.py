"""Images that several steps decode: which shards there are, and how their files are handed on."""

from pathlib import Path

import pytest
from default_params import default_text
from dvc.repo import Repo

import spread
import step
from stages.preprocess import PACKED

DVC_FILES = ("data/packed/00000.dvc", "data/packed/00001.dvc")
STAGE = {"cmd": "cp images tensors", "deps": ["images"], "outs": ["tensors"]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(default_text(**{"preprocess.shards": 3}))
    return tmp_path


def test_every_shard_is_packed_where_there_are_several(project: Path) -> None:
    assert spread.shards_to_pack(project, has_remote=False) == ["0", "1", "2"]
    (project / "params.yaml").write_text(default_text())
    assert spread.shards_to_pack(project, has_remote=True) == [spread.NOTHING]


def test_nothing_is_packed_for_a_result_that_the_run_cache_has(project: Path) -> None:
    (project / "images").write_text("images")
    with Repo.init(no_scm=True) as repo:
        repo.stage.add(name="preprocess", **STAGE)
        assert spread.shards_to_pack(project, has_remote=True) == ["0", "1", "2"]
        repo.reproduce()
    (project / "dvc.lock").unlink()  # which a new checkout does not have
    (project / "tensors").unlink()
    assert spread.shards_to_pack(project, has_remote=True) == [spread.NOTHING]
    assert spread.shards_to_pack(project, has_remote=False) == ["0", "1", "2"]
    (project / "images").write_text("others")
    assert spread.shards_to_pack(project, has_remote=True) == ["0", "1", "2"]
    assert not (project / "dvc.lock").exists()


def test_packed_files_go_from_project_to_project_by_the_texts_of_their_dvc_files(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def dvc(*arguments: str) -> None:
        asked.append(arguments)
        if arguments[0] == "add":
            (tmp_path / f"{arguments[1]}.dvc").write_text("outs: 2")

    file = tmp_path / "data/packed/00002-of-00003.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    text = spread.push_packed(tmp_path, dvc)
    spread.pull_packed(tmp_path / "other", [spread.NOTHING, "outs: 1", text], dvc)
    spread.pull_packed(tmp_path / "another", [spread.NOTHING], dvc)
    name = "data/packed/00002-of-00003.safetensors"
    assert asked == [("add", name), ("push", f"{name}.dvc"), ("pull", *DVC_FILES)]
    assert [(tmp_path / "other" / path).read_text() for path in DVC_FILES] == ["outs: 1", "outs: 2"]
    assert not (tmp_path / "another").exists()


def test_a_step_that_has_nothing_to_pack_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "subprocess", None)
    monkeypatch.setattr(step, "tempfile", None)
    given = {
        "inputs": {"parameterValues": {"settings": [], "mlflow_uri": "", "shard": spread.NOTHING}},
        "outputs": {"outputFile": str(tmp_path / "told.json")},
    }
    step.run_step("pack", f"workspace:{tmp_path / 'volume'}", given)
    assert '"packed": "none"' in (tmp_path / "told.json").read_text()


def test_the_steps_find_packed_files_where_the_stage_does() -> None:
    assert spread.PACKED == PACKED
