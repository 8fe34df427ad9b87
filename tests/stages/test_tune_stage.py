"""`python -m stages.tune` from the first trial to the verdict, with experiments that take milliseconds."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from stub_experiment import score
from stub_ways import stub_ways
from waiting import Ended

from ssd.errors import UserError
from ssd.params import Params
from ssd.tensor_writer import AnnotatedImage, write_shards
from stages.experiment import Experiment
from stages.final_seeds import Figures, read_figures, table
from stages.pool import Pool
from stages.train import TRAIN_FILE, VAL_FILE
from stages.tune import TEST_FILE, check_splits, digest_of, measurement, tune

Search = Callable[..., str]

SETTINGS = {
    **{"tune.trials": 5, "tune.seeds": 2, "tune.workers": 2, "tune.prune_after": 3, "train.lr": 0.3},
    **{"tune.space": {"train.lr": {"low": 0.01, "high": 1.0}}, "tracking.enabled": False},
}


@pytest.fixture
def search(
    tmp_path: Path,
    make_params: Callable[..., Params],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Search:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr("stages.tune.PAUSE", 0.01)
    for file in (TRAIN_FILE, VAL_FILE, TEST_FILE):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("tensors")

    def run(**changes: object) -> str:
        tune(make_params(**(SETTINGS | changes)), stub_ways(tmp_path))
        return capsys.readouterr().out

    return run


def test_it_ends_with_a_verdict_over_seeds_on_the_test_split(search: Search, tmp_path: Path) -> None:
    said = search().splitlines()
    summary = json.loads((tmp_path / "reports/tune/summary.json").read_text())
    best = summary["best"]
    assert best["value"] == score(best["values"]["train.lr"], 3) > score(0.3, 3)
    for what, rate in (("start", 0.3), ("best", best["values"]["train.lr"])):
        for seed, found in enumerate(summary["seeds"][what], 1):
            assert (found["seed"], found["val"]) == (seed, pytest.approx(score(rate, 3, seed)))
            assert found["test"] == pytest.approx(found["val"] - 0.1)
    assert said[-2] == summary["verdict"]
    assert said[-2].startswith("the best values beat the start") == (summary["difference"]["low"] > 0)
    rate = f"-S train.lr={best['values']['train.lr']}"
    assert said[-1] == f"take the best values over: dvc exp run {rate} -S 'train.select_by=\"map50\"'"
    rows = (tmp_path / "reports/tune/trials.tsv").read_text().splitlines()
    assert [row.split("\t")[1] for row in rows] == ["state", *["complete"] * 5]
    for picture in ("history.png", "importance.png"):
        assert (tmp_path / "reports/tune" / picture).is_file()
    started = [line.split()[0] for line in (tmp_path / "started").read_text().splitlines()]
    again = search().splitlines()
    assert again[-2:] == said[-2:]
    assert len(started) == len((tmp_path / "started").read_text().splitlines()), "nothing runs twice"


def test_fused_models_are_fused_on_the_test_split_too(search: Search, tmp_path: Path) -> None:
    objective = {"tune.objective": "fused_map50_f1", "train.keep_best": 3, "train.f1_score": 0.5}
    space = {"train.lr": [0.4, 0.45], "train.f1_score": [0.3, 0.7]}
    search(**objective, **{"tune.space": space, "tune.trials": 2})
    summary = json.loads((tmp_path / "reports/tune/summary.json").read_text())
    for found in summary["seeds"]["start"]:
        assert found["val"] == pytest.approx(score(0.3, 3, found["seed"]) + 0.02)
        assert found["test"] == pytest.approx(found["val"] - 0.04)
        params = json.loads((tmp_path / "done" / found["experiment"]).read_text())["params"]
        assert (params["evaluate.ensemble"], params["train.select_by"]) == (3, "map50_f1")
        assert "train.f1_score" not in params, "that of params.yaml"
    for found in summary["seeds"]["best"]:
        params = json.loads((tmp_path / "done" / found["experiment"]).read_text())["params"]
        assert params["train.f1_score"] == summary["best"]["values"]["train.f1_score"] != 0.5


def test_a_last_training_with_other_params_is_refused(
    tmp_path: Path, make_params: Callable[..., Params]
) -> None:
    (tmp_path / "done").mkdir()
    (tmp_path / "done/a").write_text(json.dumps({"params": {"train.epochs": 99}, "history": ""}))
    experiment = Experiment("a", {"train.seed": 1}, "evaluate", tmp_path)
    with pytest.raises(UserError, match=r"^a ran with other params \(train\.epochs\): .*`dvc exp remove a`"):
        read_figures(experiment, make_params(), Pool(1, stub_ways(tmp_path), dict, 0))


def test_where_the_start_is_the_best_it_alone_is_trained_again(search: Search, tmp_path: Path) -> None:
    said = search(**{"tune.space": {"train.lr": [0.5, 0.1]}, "train.lr": 0.5, "tune.trials": 3})
    summary = json.loads((tmp_path / "reports/tune/summary.json").read_text())
    assert list(summary["seeds"]) == ["start"]
    assert said.splitlines()[-1] == "no trial was better than the start: the values of params.yaml stay"


def test_another_space_or_data_is_another_search_and_more_workers_or_trials_are_not(
    search: Search, make_params: Callable[..., Params]
) -> None:
    def digest(**changes: object) -> str:
        return digest_of(make_params(**(SETTINGS | changes)))

    before = digest()
    same = {"tune.trials": 9, "tune.workers": 1, "tune.seeds": 4, "train.workers": 2, "preprocess.workers": 1}
    for key, value in same.items():
        assert digest(**{key: value}) == before, key
    space = {"train.lr": [0.3, 0.5]}
    others = {"tune.objective": "f1", "tune.space": space, "tune.seed": 1, "train.lr": 0.2}
    for key, value in others.items():
        assert digest(**{key: value}) != before, key
    VAL_FILE.write_text("others")
    assert digest() != before


def test_what_was_measured_on_another_test_split_or_otherwise_is_not_taken(
    search: Search, make_params: Callable[..., Params]
) -> None:
    before = measurement(make_params())
    assert measurement(make_params(**{"train.lr": 0.2})) == before
    assert measurement(make_params(**{"evaluate.nms_iou": 0.3})) != before
    TEST_FILE.write_text("others")
    assert measurement(make_params()) != before


def test_outside_of_a_repository_with_a_commit_it_stops_with_one_line(
    run_stage: Callable[..., Ended],
) -> None:
    ended = run_stage("tune")
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert "experiments stand on git" in line


def test_a_space_that_is_wrong_stops_it_before_anything_runs(run_stage: Callable[..., Ended]) -> None:
    ended = run_stage("tune", **{"tune.space": {"train.seed": [1, 2]}})
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("params.yaml: tune.space.train.seed: changes no model")


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [
        ("a", "b", None),
        (
            "",
            "b",
            "data/tensors/val: no object that counts, and a search needs some: set preprocess.val_fraction",
        ),
        ("a", "", "data/tensors/test: no object that counts"),
        ("a", "a", "found 0, so test is val"),
    ],
)
def test_val_and_test_have_objects_and_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, val: str, test: str, message: str | None
) -> None:
    """Their images are of these names; without a name there is only a crowd, which does not count."""
    monkeypatch.chdir(tmp_path)
    TEST_FILE.parent.mkdir(parents=True)
    for file, name in ((VAL_FILE, val), (TEST_FILE, test)):
        image = AnnotatedImage(name, b"", (9, 9), [(1, 1, 5, 5)], [1], difficult=[False], crowd=[not name])
        write_shards(file, [[image]], ["cat"])
    with pytest.raises(UserError, match=message) if message else nullcontext():
        check_splits()


def test_the_table_has_mean_and_deviation_of_val_and_test() -> None:
    start = [Figures(1, 0.5, 0.4, "a"), Figures(2, 0.7, 0.6, "b")]
    lines = [line.split() for line in table({"start": start}, "map50").splitlines()[1:]]
    assert lines == [
        ["seed", "val", "start", "test", "start"],
        ["1", "0.5000", "0.4000"],
        ["2", "0.7000", "0.6000"],
        ["mean", "0.6000", "0.5000"],
        ["deviation", "0.1414", "0.1414"],
    ]
