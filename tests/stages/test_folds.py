"""The command that sums up folds, with answers of `dvc exp show --json` made after real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


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


def folds(folder: Path, dvc: str) -> subprocess.CompletedProcess[str]:
    """Run the command where `python -m dvc` is the given Python code."""
    (folder / "dvc").mkdir()
    (folder / "dvc/__init__.py").touch()
    (folder / "dvc/__main__.py").write_text(dvc)
    (folder / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    return subprocess.run(
        [sys.executable, "-m", "stages.folds"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


def test_finished_folds_are_summed_up_and_the_others_named(tmp_path: Path) -> None:
    runs = [shown(0, "success", 0.2), shown(1, None, 0.4), shown(2, "failed", 0.9), shown(3, "queued")]
    result = folds(tmp_path, f"print({answer(*runs)!r})")
    assert result.returncode == 0, result.stderr
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


def test_dvc_is_asked_for_its_experiments_as_json(tmp_path: Path) -> None:
    code = f"import sys; assert sys.argv[1:4] == ['exp', 'show', '--json']; print({answer(shown(0))!r})"
    assert folds(tmp_path, code).returncode == 0


def test_without_fold_experiments_the_commands_to_run_are_one_line(tmp_path: Path) -> None:
    result = folds(tmp_path, f"print({answer(shown(0, folds=0))!r})")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "dvc exp run --queue -S data.folds=5 -S 'data.fold=0,1,2,3,4' && dvc queue start" in line
    assert not (tmp_path / "reports").exists()


def test_an_experiment_without_metrics_is_said_to_have_none(tmp_path: Path) -> None:
    run = shown(0)
    run["revs"][0]["data"]["metrics"] = {"reports/metrics.json": {"error": {"msg": "gone", "type": "X"}}}
    result = folds(tmp_path, f"print({answer(run)!r})")
    assert "fold 0 finished without figures: None-0" in result.stdout


@pytest.mark.parametrize("data", [None, {"params": {"params.yaml": {"error": {"msg": "bad"}}}}])
def test_an_experiment_that_dvc_cannot_read_is_left_out_with_a_warning(
    tmp_path: Path, data: dict[str, Any] | None
) -> None:
    run = shown(1)
    run["revs"][0]["data"] = data
    result = folds(tmp_path, f"print({answer(shown(0), run)!r})")
    assert "experiment None-1 is left out" in result.stderr
    assert "folds found: 0 of 5" in result.stdout


def test_an_error_of_dvc_is_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.exit('ERROR: you are not inside of a DVC repository')"
    result = folds(tmp_path, code)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "not inside of a DVC repository" in line
