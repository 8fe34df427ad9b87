"""The command that sums up folds, with answers of `dvc exp show --json` made after real ones."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from default_params import default_content
from waiting import Ended

from ssd.errors import UserError
from stages.fold_models import FETCHED

Folds = Callable[..., Ended]

SPLITS = {name: default_content()[name] for name in ("data", "preprocess")}
"""What decides the splits, as params.yaml has it."""


def shown(fold: int, state: str | None = None, value: float = 0.5, folds: int = 5) -> dict[str, Any]:
    """An experiment as DVC shows it, without lists; `state` None is one that ran outside the queue.

    Of a failed one, DVC shows the figures of the commit it started from.
    """
    metrics = {"coco": {"map": value}, "num_images": 3}
    name = f"{state}-{fold}"
    data = {
        "rev": f"{fold}" * 40,
        "timestamp": f"2026-01-02T03:04:{fold:02}",
        "params": {
            "params.yaml": {"data": {**SPLITS, "data": {**SPLITS["data"], "folds": folds, "fold": fold}}}
        },
        "metrics": {} if state == "queued" else {"reports/metrics.json": {"data": metrics}},
        "deps": {},
        "outs": {},
        "meta": {},
    }
    error = {"msg": "Experiment run failed", "type": ""} if state == "failed" else None
    tip = {"rev": data["rev"], "name": name, "data": data, "error": error, "experiments": None}
    return {"revs": [tip], "executor": state and {"state": state, "name": None, "local": None}, "name": name}


def kept(revision: str, path: str) -> str:
    """What DVC's cache has of the experiment of a fold, whose figures are what the test makes them."""
    if path == "reports/preprocess/problems.json":
        mine = {"split": "test", "action": "unused"}
        return json.dumps({"problems": [mine, mine, {**mine, "split": ""}, {**mine, "action": "dropped"}]})
    assert path == "reports/metrics.json"
    fold = int(revision[0])
    value = 0.2 * (fold + 1)
    digest = hashlib.sha256(weights(fold)).hexdigest()
    return json.dumps(
        {
            "coco": {"map": value},
            "num_images": 3,
            "per_class": [{"class": "cat", "coco_ap": value}],
            "sha256": [f"{digest}  models/model.pt", f"{'0' * 64}  data/tensors/test"],
        }
    )


def weights(fold: int) -> bytes:
    return f"model of fold {fold}".encode()


def copied(revision: str, path: str, target: Path) -> None:
    """A stand-in of DVC's cache for models."""
    assert path == "models/model.pt"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(weights(int(revision[0])))


def answer(*experiments: dict[str, Any]) -> str:
    """A commit with folds in its params and these experiments."""
    tip = shown(0, value=0.99)["revs"][0]
    return json.dumps([{**tip, "name": "main", "experiments": list(experiments) or None}])


@pytest.fixture
def folds(run_stage: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folds:
    """Run the command where `python -m dvc` is the given Python code, by params with changes."""
    for module in ("folds", "fold_models"):
        monkeypatch.setattr(f"stages.{module}.read_output", kept)
    monkeypatch.setattr("stages.fold_models.copy_output", copied)
    monkeypatch.setattr("stages.fold_models.recorded_digest", lambda *asked: "1a")

    def run(dvc: str, **changes: object) -> Ended:
        (tmp_path / "dvc").mkdir(exist_ok=True)
        (tmp_path / "dvc/__init__.py").touch()
        (tmp_path / "dvc/__main__.py").write_text(dvc)
        return run_stage("folds", **changes)

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
    assert written["per_class"]["cat"]["coco_ap"]["mean"] == pytest.approx(0.3)
    assert "cat    0.3000 +- 0.1414" in lines
    assert written["missing"] == [2, 3, 4]
    assert "evaluate.models" not in result.stdout and not (tmp_path / "models").exists()


def test_the_models_of_all_folds_are_fetched_once_and_the_command_that_fuses_them_printed(
    folds: Folds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = f"print({answer(shown(0, 'success', folds=2), shown(1, folds=2))!r})"
    result = folds(both)
    assert result.code == 0, result.stderr
    names = [f"{fold}-{hashlib.sha256(weights(fold)).hexdigest()[:8]}.pt" for fold in range(2)]
    files = ", ".join(f"models/folds/{name}" for name in names)
    told, command = result.stdout.splitlines()[-2:]
    assert "on the 2 images that no fold has seen" in told
    assert command == f"dvc exp run -S data.folds=0 -S data.fold=0 -S 'evaluate.models=[{files}]'"
    assert [(tmp_path / "models/folds" / name).read_bytes() for name in names] == [weights(0), weights(1)]
    assert all(map(FETCHED.fullmatch, names)), "make clean knows them"
    monkeypatch.setattr("stages.fold_models.copy_output", None)
    assert folds(both).stdout == result.stdout
    (tmp_path / "models/folds" / names[1]).write_bytes(b"another")
    damaged = f"models/folds/{names[1]}: not the model that None-1 measured; delete it, and run this again"
    assert folds(both).stdout.splitlines()[-1] == f"not fused: {damaged}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"preprocess.split_seed": 1, "data.path": "b"},
            "differs from this cross-validation in data.path, pre",
        ),
        ({"preprocess.workers": 1, "data.folds": 2, "data.fold": 1}, ""),
    ],
)
def test_they_are_not_fused_on_another_split(
    folds: Folds, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    both = f"print({answer(shown(0, folds=2), shown(1, folds=2))!r})"
    result = folds(both, **changes)
    assert result.code == 0, result.stderr
    assert ("evaluate.models=" in result.stdout) is (reason == "") is (tmp_path / "models").exists()
    assert reason in result.stdout


@pytest.mark.parametrize(
    ("here", "folds_had", "fused"),
    [("1a", "1a", True), ("", "1a", True), ("2b", "1a", False), ("", "1a2b", False), ("1a", "1a2b", False)],
)
def test_models_of_folds_that_ran_on_other_data_are_not_fused(
    folds: Folds, monkeypatch: pytest.MonkeyPatch, here: str, folds_had: str, fused: bool
) -> None:
    """A user's folder may change behind its path, which the params name; empty: there is none here yet."""

    def recorded(output: str, revision: str | None = None) -> str:
        assert output == "data/raw"
        return {None: here, "0" * 40: folds_had[:2], "1" * 40: folds_had[-2:]}[revision]

    monkeypatch.setattr("stages.fold_models.recorded_digest", recorded)
    result = folds(f"print({answer(shown(0, folds=2), shown(1, folds=2))!r})")
    assert ("evaluate.models=" in result.stdout) is fused
    assert ("not fused: data/raw was not the same in all folds, or is another" in result.stdout) is not fused


def test_figures_that_dvc_remembers_of_files_it_has_not_kept_are_warned_of(
    folds: Folds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(revision: str, path: str) -> str:
        raise UserError(f"DVC has no {path} of {revision} here")

    for module in ("folds", "fold_models"):
        monkeypatch.setattr(f"stages.{module}.read_output", gone)
    result = folds(f"print({answer(shown(0, folds=2, value=0.3), shown(1, folds=2, value=0.5))!r})")
    assert result.code == 0
    assert "coco map  0.4000  0.1414   0, 1" in result.stdout
    assert f"figures of classes are missing: DVC has no reports/metrics.json of {'1' * 40}" in caplog.text
    told = result.stdout.splitlines()[-1]
    assert told == f"not fused: DVC has no reports/preprocess/problems.json of {'0' * 40} here"


def test_where_the_folds_left_out_nothing_it_is_said_how_to_hold_images_out(
    folds: Folds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.fold_models.read_output", lambda *asked: '{"problems": []}')
    result = folds(f"print({answer(shown(0, folds=2), shown(1, folds=2))!r})")
    assert "not fused: the folds left out no images" in result.stdout
    assert "set preprocess.test_fraction above 0" in result.stdout
    assert not (tmp_path / "models").exists()


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


@pytest.mark.parametrize(
    "reason",
    [
        "failed to show experiments - directory '/x/.dvc/tmp/exps/tmp1/.dvc' does not exist",
        "unexpected error - [Errno 2] No such file or directory: '/x/.dvc/tmp/exps/run/1/1.json'",
    ],
)
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_dvc_is_asked_again_while_an_experiment_starts_or_ends(
    folds: Folds, reason: str, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.folds.NUM_TRIES", 3)
    monkeypatch.setattr("stages.folds.PAUSE", 0.0)
    ask = f"""
import pathlib, sys
asked = pathlib.Path("asked")
asked.write_text((asked.read_text() if asked.exists() else "") + ".")
if len(asked.read_text()) <= {failures}:
    sys.exit({f"ERROR: {reason}"!r})
print({answer(shown(0))!r})
"""
    result = folds(ask)
    assert len(Path("asked").read_text()) == min(failures + 1, 3)
    if failures < 3:
        assert "folds found: 0 of 5" in result.stdout
    else:
        assert result.code == 2
        assert result.stderr.splitlines()[-1] == (
            f"`dvc exp show` failed 3 times: ERROR: {reason}; wait until no experiment starts or ends"
        )
