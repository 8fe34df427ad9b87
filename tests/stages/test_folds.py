"""The command that sums up folds, with answers of `dvc exp show --json` made after real ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import Ended

Folds = Callable[[str], Ended]


def shown(fold: int, state: str | None = None, value: float = 0.5, folds: int = 5) -> dict[str, Any]:
    """An experiment as DVC shows it; `state` None is one that ran outside the queue.

    Of a failed one, DVC shows the figures of the commit it started from.
    """
    metrics = {"coco": {"map": value}, "num_images": 3, "per_class": [{"class": "cat", "coco_ap": value}]}
    name = f"{state}-{fold}"
    data = {
        "rev": "4a0b" * 10,
        "timestamp": f"2026-01-02T03:04:{fold:02}",
        "params": {"params.yaml": {"data": {"data": {"folds": folds, "fold": fold}, "train": {"lr": 0.1}}}},
        "metrics": {} if state == "queued" else {"reports/metrics.json": {"data": metrics}},
        "deps": {},
        "outs": {},
        "meta": {},
    }
    error = {"msg": "Experiment run failed", "type": ""} if state == "failed" else None
    tip = {"rev": data["rev"], "name": name, "data": data, "error": error, "experiments": None}
    return {"revs": [tip], "executor": state and {"state": state, "name": None, "local": None}, "name": name}


def answer(*experiments: dict[str, Any]) -> str:
    """A commit with folds in its params and these experiments."""
    tip = shown(0, value=0.99)["revs"][0]
    return json.dumps([{**tip, "name": "main", "experiments": list(experiments) or None}])


@pytest.fixture
def folds(run_stage: Callable[..., Ended], tmp_path: Path) -> Folds:
    """Run the command where `python -m dvc` is the given Python code."""

    def run(dvc: str) -> Ended:
        (tmp_path / "dvc").mkdir()
        (tmp_path / "dvc/__init__.py").touch()
        (tmp_path / "dvc/__main__.py").write_text(dvc)
        return run_stage("folds")

    return run


def test_finished_folds_are_summed_up_and_the_others_named(folds: Folds, tmp_path: Path) -> None:
    runs = [shown(0, "success", 0.2), shown(1, None, 0.4), shown(2, "failed", 0.9), shown(3, "queued")]
    result = folds(f"print({answer(*runs)!r})")
    assert result.code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[:6] == [
        "cross-validation in 5 parts",
        "folds found: 0, 1 of 5",
        "fold 2 failed: failed-2",
        "fold 3 is queued: queued-3",
        "missing and not queued: fold 4",
        "the figures are of some folds only",
    ]
    assert lines[8].split() == ["coco", "map", "0.3000", "0.1414", "0,", "1"]
    (written,) = json.loads((tmp_path / "reports/folds.json").read_text())["cross_validations"]
    assert written["figures"]["coco map"]["values"] == {"0": 0.2, "1": 0.4}
    assert written["missing"] == [2, 3, 4]


def test_dvc_is_asked_for_its_experiments_as_json(folds: Folds) -> None:
    code = f"import sys; assert sys.argv[1:4] == ['exp', 'show', '--json']; print({answer(shown(0))!r})"
    assert folds(code).code == 0


def test_without_fold_experiments_the_commands_to_run_are_one_line(folds: Folds, tmp_path: Path) -> None:
    result = folds(f"print({answer(shown(0, folds=0))!r})")
    assert result.code == 2
    (line,) = result.stderr.splitlines()
    assert "dvc exp run --queue -S data.folds=5 -S 'data.fold=0,1,2,3,4' && dvc queue start" in line
    assert not (tmp_path / "reports").exists()


def test_an_experiment_without_metrics_is_said_to_have_none(folds: Folds) -> None:
    run = shown(0)
    run["revs"][0]["data"]["metrics"] = {"reports/metrics.json": {"error": {"msg": "gone", "type": "X"}}}
    result = folds(f"print({answer(run)!r})")
    assert "fold 0 finished without figures: None-0" in result.stdout


@pytest.mark.parametrize("data", [None, {"params": {"params.yaml": {"error": {"msg": "bad"}}}}])
def test_an_experiment_that_dvc_cannot_read_is_left_out_with_a_warning(
    folds: Folds, data: dict[str, Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    run = shown(1)
    run["revs"][0]["data"] = data
    result = folds(f"print({answer(shown(0), run)!r})")
    assert "experiment None-1 is left out" in caplog.text
    assert "folds found: 0 of 5" in result.stdout


def test_an_error_of_dvc_is_one_line(folds: Folds) -> None:
    code = "import sys; sys.exit('ERROR: you are not inside of a DVC repository')"
    result = folds(code)
    assert result.code == 2
    (line,) = result.stderr.splitlines()
    assert "not inside of a DVC repository" in line
