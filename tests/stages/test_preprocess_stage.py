"""The stage preprocess on a small embedded data set."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssd.loading.tensor_file import TensorFile
from ssd.source.shapes import write_shapes

SPLITS = ("train", "val", "test")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder in which the stage download has been run."""
    devkit = tmp_path / "data/raw/shapes/VOCdevkit/shapes"
    write_shapes(devkit, num_train=6, num_val=3, num_test=3, side=64, seed=1)
    return tmp_path


@pytest.fixture
def preprocess(workspace: Path, run_stage: Callable[..., Any]) -> Callable[..., Any]:
    """Run it there: preprocess(**{"data.folds": 3})."""
    return lambda **changes: run_stage("preprocess", **{"preprocess.workers": 1, **changes})


def test_three_tensor_files_and_two_reports(workspace: Path, preprocess: Callable[..., Any]) -> None:
    done = preprocess()
    assert done.code == 0, done.stderr
    files = {split: TensorFile(workspace / f"data/tensors/{split}") for split in SPLITS}
    assert {split: len(file) for split, file in files.items()} == {"train": 6, "val": 3, "test": 3}
    summary = json.loads((workspace / "reports/preprocess/summary.json").read_text())
    assert summary["class_names"] == files["train"].class_names == files["test"].class_names
    assert summary["splits"]["train"]["num_objects"] == len(files["train"].labels)
    assert json.loads((workspace / "reports/preprocess/problems.json").read_text())["num_dropped"] == 0
    assert re.search(r"(?m)^ +train +6 ", done.stdout)


def test_a_fold_is_cut_from_the_train_and_val_images(workspace: Path, preprocess: Callable[..., Any]) -> None:
    done = preprocess(**{"data.folds": 3, "data.fold": 1, "preprocess.val_fraction": 0.2})
    assert done.code == 0, done.stderr
    lengths = [len(TensorFile(workspace / f"data/tensors/{split}")) for split in SPLITS]
    assert lengths == [5, 1, 3]
    assert "note: test is fold 1 of 0 to 2 (data.fold) of the train and val images" in done.stdout
    assert "note: the data set's own test split is not used" in done.stdout
    assert sorted(path.name for path in (workspace / "data").iterdir()) == ["raw", "tensors"]


def test_problems_are_printed_and_strict_refuses_them_after_reporting(
    workspace: Path, preprocess: Callable[..., Any]
) -> None:
    devkit = workspace / "data/raw/shapes/VOCdevkit/shapes"
    first = (devkit / "ImageSets/Main/train.txt").read_text().split()[0]
    image = next(devkit.glob(f"JPEGImages/{first}.*"))
    image.write_bytes(image.read_bytes()[:-20])
    loose = preprocess()
    assert loose.code == 0, loose.stderr
    assert f"dropped (train) shapes/JPEGImages/{image.name}: does not decode" in loose.stdout
    assert len(TensorFile(workspace / "data/tensors/train")) == 5

    (workspace / "reports/preprocess/problems.json").unlink()
    strict = preprocess(**{"preprocess.strict": True})
    assert strict.code == 2
    (line,) = strict.stderr.strip().splitlines()
    assert "1 problem(s), listed in reports/preprocess/problems.json" in line
    assert json.loads((workspace / "reports/preprocess/problems.json").read_text())["num_dropped"] == 1


def test_shards_that_others_have_packed_give_the_same_bytes(
    workspace: Path, run_stage: Callable[..., Any]
) -> None:
    changes = {"preprocess.workers": 1, "preprocess.shards": 3, "data.folds": 2}

    def written() -> dict[str, bytes]:
        done = run_stage("preprocess", **changes)
        assert done.code == 0, done.stderr
        files = [*workspace.glob("data/tensors/*/*"), *workspace.glob("reports/preprocess/*")]
        return {str(path.relative_to(workspace)): path.read_bytes() for path in files}

    alone = written()
    assert len(alone) == 3 * 3 + 2
    for shard in ("2", "0"):
        done = run_stage("pack", shard, **changes)
        assert done.code == 0, done.stderr
        assert f"packed: data/packed/0000{shard}-of-00003.safetensors" in done.stdout
    assert written() == alone
    assert run_stage("pack", "1", **changes).code == 0
    assert written() == alone


@pytest.mark.parametrize(
    ("shard", "shards", "code", "told"),
    [
        ("3", 3, 2, "shard 3: allowed: 0 to 2 (preprocess.shards - 1)\n"),
        ("-1", 3, 2, "shard -1: allowed: 0 to 2 (preprocess.shards - 1)\n"),
        ("0", 1, 0, "preprocess.shards is 1: there is nothing to spread; preprocess decodes all images\n"),
    ],
)
def test_nothing_is_packed_of_a_shard_that_is_not_there_or_the_only_one(
    workspace: Path, run_stage: Callable[..., Any], shard: str, shards: int, code: int, told: str
) -> None:
    done = run_stage("pack", shard, **{"preprocess.shards": shards})
    assert (done.code, done.stdout + done.stderr) == (code, told)
    assert not (workspace / "data/packed").exists()
