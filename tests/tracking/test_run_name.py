"""Names of runs: what differs comes first, and stays short."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from default_params import default_text

from ssd.params import NOT_OF_A_RUN, Params
from ssd.tracking.run import flat_params
from ssd.tracking.run_name import LONGEST, child_name, run_name
from stages.run_name import committed_params, name_of

MakeParams = Callable[..., Params]


@pytest.fixture
def default(make_params: MakeParams) -> dict[str, object]:
    return flat_params(make_params().model_dump(exclude=NOT_OF_A_RUN))


def test_where_nothing_differs_the_name_is_what_was_trained_on_what(default: dict[str, object]) -> None:
    assert run_name(default, [default]) == "shapes resnet18-128"


def test_the_name_begins_with_what_differs_and_ends_with_the_experiment(default: dict[str, object]) -> None:
    values = default | {"train.lr": 0.001, "train.seed": 1}
    assert run_name(values, [default], "busy-bee") == "lr=0.001 seed=1 · shapes resnet18-128 · busy-bee"


def test_a_difference_from_the_nearer_reference_comes_first(default: dict[str, object]) -> None:
    committed = default | {"train.epochs": 40}
    values = committed | {"train.seed": 1}
    assert run_name(values, [committed, default]) == "seed=1 epochs=40 · shapes resnet18-128"


def test_what_changes_no_model_is_not_named(default: dict[str, object]) -> None:
    values = default | {"train.workers": 8, "evaluate.nms_iou": 0.3, "tracking.experiment": "x"}
    assert run_name(values, [default]) == "shapes resnet18-128"


def test_a_key_that_two_sections_have_keeps_its_section(default: dict[str, object]) -> None:
    assert run_name(default | {"train.batch_size": 8}, [default]).startswith("train.batch_size=8 · ")


def test_a_key_that_the_reference_lacks_does_not_differ(default: dict[str, object]) -> None:
    assert run_name(default, [{"train.lr": default["train.lr"]}, {}]) == "shapes resnet18-128"


def test_a_fold_is_named_as_its_param(default: dict[str, object]) -> None:
    values = default | {"data.folds": 5, "data.fold": 4}
    assert run_name(values, [default]) == "fold=4 of 5 · shapes resnet18-128"


def test_own_data_is_named_by_its_folder(default: dict[str, object]) -> None:
    values = default | {"data.source": "folder", "data.path": "~/Downloads/cells.zip"}
    assert run_name(values, [default]) == "cells resnet18-128"


def test_a_dot_in_the_name_of_a_folder_stays(default: dict[str, object]) -> None:
    values = default | {"data.source": "folder", "data.path": "data/photos.v2"}
    assert run_name(values, [default]) == "photos.v2 resnet18-128"


def test_many_differences_are_counted_instead_of_named(default: dict[str, object]) -> None:
    numbers = {key: value for key, value in default.items() if isinstance(value, int | float)}
    values = default | {key: float(value) + 0.125 for key, value in numbers.items()}
    differences, _, _ = run_name(values, [default]).partition(" · ")
    named, _, rest = differences.rpartition(" +")
    assert len(named) <= LONGEST
    assert int(rest) > 50


def test_a_long_value_is_cut(default: dict[str, object]) -> None:
    values = default | {"model.prior_ratios": [[1, 2, 0.5, 3, 1 / 3]] * 6}
    assert len(run_name(values, [default])) < 100


def test_a_child_is_named_by_what_its_stage_has_changed() -> None:
    before = {"evaluate.batch_size": 8, "evaluate.nms_iou": 0.45}
    known = repr(sorted(before.items()))
    assert child_name("evaluate", known, before | {"evaluate.nms_iou": 0.6}) == "nms_iou=0.6 · evaluate"
    assert child_name("export", known, before) == "again · export"


def test_params_are_compared_with_the_last_commit(
    make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(default_text(**{"train.lr": 0.25}))
    commit = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "x"]
    for command in (["git", "init", "-q"], ["git", "add", "params.yaml"], commit):
        subprocess.run(command, cwd=tmp_path, check=True)
    assert name_of(make_params(**{"train.lr": 0.25})) == "shapes resnet18-128"
    assert name_of(make_params(**{"train.lr": 0.5})) == "lr=0.5 · shapes resnet18-128"


def test_committed_params_that_are_no_utf_8_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"train: {lr: 0.5}  # \xff")
    commit = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "x"]
    for command in (["git", "init", "-q"], ["git", "add", "params.yaml"], commit):
        subprocess.run(command, cwd=tmp_path, check=True)
    assert committed_params(tmp_path) == {}


def test_without_git_there_is_still_a_name(
    make_params: MakeParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert name_of(make_params(**{"train.lr": 0.25})) == "shapes resnet18-128"
