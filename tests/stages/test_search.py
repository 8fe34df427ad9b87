"""A search with experiments that take milliseconds: whatever ends it, no trial is lost or doubled."""

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from default_params import default_params
from optuna.trial import TrialState
from stub_experiment import score
from stub_ways import stub_ways
from waiting import wait_until

from ssd.errors import UserError
from ssd.interrupt import StopSignal
from ssd.params import Params
from ssd.tuning.space import distributions
from ssd.tuning.store import NOTE, SAME_AS, VALUES, Store
from stages.dvc_files import read_output
from stages.experiment import (
    Experiment,
    dvc_command,
    failure_reason,
    is_alive,
    remove_checkpoints,
    remove_copy,
    wait_until_begun,
)
from stages.pool import Pool
from stages.search import Search, line_of

SPACE = {"train.lr": {"low": 0.01, "high": 1.0}}
SETTINGS = {
    **{"tune.trials": 6, "tune.startup_trials": 2, "tune.space": SPACE, "train.lr": 0.3, "train.epochs": 3},
}

Found = list[tuple[object, str, float | None, dict[int, float]]]


@pytest.fixture(scope="module")
def empty_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without trials, which takes half a second to make."""
    path = tmp_path_factory.mktemp("empty") / "study.db"
    Store(path, {}).close()
    return path


class Place:
    """A folder with a search, which processes may take over from each other."""

    def __init__(self, folder: Path, empty_study: Path) -> None:
        self.folder = folder
        shutil.copy(empty_study, folder / "study.db")

    def search(self, **changes: object) -> Search:
        params: Params = default_params(**(SETTINGS | changes))
        variables = {"MLFLOW_RUN_ID": "parent"}
        pool = Pool(params.tune.workers, stub_ways(self.folder), lambda: variables, pause=0.01)
        store = Store(self.folder / "study.db", distributions(params))
        return Search(params, "tune-x", self.folder / "experiments", store, pool)

    def run(self, **changes: object) -> Found:
        """To the end, in this process; what is in the file then."""
        search = self.search(**changes)
        for _ in search.run(StopSignal()):
            pass
        search.store.close()
        return self.found()

    def run_killed(self, num_events: int) -> None:
        """In a process of its own that kills itself after so many trials that have begun or ended."""

        def work() -> None:
            for number, _ in enumerate(self.search().run(StopSignal()), 1):
                if number == num_events:
                    os.kill(os.getpid(), signal.SIGKILL)

        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL

    def found(self) -> Found:
        store = Store(self.folder / "study.db", {})
        trials = store.trials()
        store.close()
        return [(t.user_attrs[VALUES], t.state.name, t.value, t.intermediate_values) for t in trials]

    def started(self) -> list[str]:
        return [line.split()[0] for line in (self.folder / "started").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path, empty_study: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, empty_study)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_study: Path) -> tuple[Found, list[str]]:
    """Trials of a search that nothing stops, and the experiments that it has started."""
    place = Place(tmp_path_factory.mktemp("undisturbed"), empty_study)
    return place.run(), place.started()


def test_the_first_trial_is_the_start_and_each_is_an_experiment_of_its_own(
    undisturbed: tuple[Found, list[str]],
) -> None:
    found, started = undisturbed
    assert len(found) == 6
    assert found[0][0] == {"train.lr": 0.3}
    assert found[0][1:] == ("COMPLETE", score(0.3, 3), {epoch: score(0.3, epoch) for epoch in (1, 2, 3)})
    assert started == [f"tune-x-{number}" for number in range(6)]


def test_a_trial_below_the_median_is_pruned_by_its_scores_not_by_the_time(
    undisturbed: tuple[Found, list[str]],
) -> None:
    """The stub is faster than whoever looks at it."""
    found, _ = undisturbed
    pruned = [(value, scores) for _, state, value, scores in found if state == "PRUNED"]
    assert pruned
    assert all(value is None and len(scores) < 3 for value, scores in pruned)


@pytest.mark.parametrize("num_events", [2, 5])
def test_a_search_that_is_killed_goes_on_as_if_it_never_was(
    place: Place, undisturbed: tuple[Found, list[str]], num_events: int
) -> None:
    """Its experiment runs on meanwhile, and is taken over or found to have ended."""
    place.run_killed(num_events)
    found, started = place.run(), place.started()
    assert (found, started) == undisturbed


def test_an_experiment_that_died_with_the_search_is_started_again_under_its_name(
    place: Place, undisturbed: tuple[Found, list[str]]
) -> None:
    (place.folder / "slow").touch()
    place.run_killed(1)
    running = Experiment("tune-x-0", {}, "train", place.folder / "experiments")
    assert is_alive(running)
    wait_until(lambda: running.history.is_file())
    os.killpg(int(running.log.read_text().split()[0]), signal.SIGKILL)
    wait_until(lambda: not is_alive(running))
    (place.folder / "slow").unlink()
    found = place.run()
    assert found == undisturbed[0]
    assert place.started() == ["tune-x-0", *undisturbed[1]]


def test_a_signal_ends_the_experiments_and_leaves_their_trials_to_the_next_search_with_more(
    place: Place, undisturbed: tuple[Found, list[str]]
) -> None:
    (place.folder / "slow").touch()
    search, stop = place.search(**{"tune.trials": 2}), StopSignal()
    running = search.run(stop)
    next(running)
    stop.received = True
    with pytest.raises(KeyboardInterrupt):
        list(running)
    assert [state for _, state, _, _ in place.found()] == ["RUNNING"]
    assert not is_alive(search.experiment(search.store.trials()[0]))
    search.store.close()
    (place.folder / "slow").unlink()
    assert place.run() == undisturbed[0]


def test_workers_run_side_by_side_and_lose_none(place: Place) -> None:
    found = place.run(**{"tune.trials": 9, "tune.workers": 3, "tune.prune_after": 3})
    assert [state for _, state, _, _ in found] == ["COMPLETE"] * 9
    assert sorted(place.started()) == sorted(f"tune-x-{number}" for number in range(9))
    assert [value for _, _, value, _ in found] == [score(v["train.lr"], 3) for v, *_ in found]  # type: ignore[index]


def test_values_that_another_trial_had_are_not_trained_again(place: Place) -> None:
    place.run(**{"tune.space": {"train.lr": [0.3, 0.5]}, "tune.trials": 4})
    assert len(place.started()) == 2
    search = place.search()
    trials = search.store.trials()
    search.store.close()
    same = [trial for trial in trials if SAME_AS in trial.user_attrs]
    assert len(same) == 2
    assert all(trial.value == trials[trial.user_attrs[SAME_AS]].value for trial in same)


def test_a_trial_is_pruned_by_its_epochs_and_valued_by_its_models_together(place: Place) -> None:
    changes = {"tune.objective": "fused_map50_f1", "train.keep_best": 3}
    search = place.search(**changes)
    trials = [trial for trial in search.run(StopSignal()) if trial.state.is_finished()]
    search.store.close()
    for trial in trials:
        rate = trial.user_attrs[VALUES]["train.lr"]
        assert trial.intermediate_values[1] == score(rate, 1)
        assert trial.value == (
            None if trial.state == TrialState.PRUNED else pytest.approx(score(rate, 3) + 0.02)
        )
    assert any(trial.state == TrialState.PRUNED for trial in trials)
    changes_of_one = search.experiment(trials[0]).changes
    assert changes_of_one["train.select_by"] == "map50_f1"
    pruned = next(trial for trial in trials if trial.state == TrialState.PRUNED)
    assert "pruned after epoch" in (line := line_of(pruned, search.params.tune)) and ", map50_f1 0." in line


def test_a_trial_that_fails_is_noted_and_the_search_goes_on(place: Place) -> None:
    found = place.run(**{"tune.space": {"train.lr": [0.3, 0.5, 1.5]}, "tune.trials": 6})
    failed = [values for values, state, _, _ in found if state == "FAIL"]
    assert failed and all(values == {"train.lr": 1.5} for values in failed)
    assert len(found) == 6
    log = place.folder / "experiments"
    name = f"tune-x-{[state for _, state, _, _ in found].index('FAIL')}"
    assert failure_reason(Experiment(name, {}, "train", log)) == "no such rate"


def test_a_search_of_which_all_trials_fail_stops_and_tries_the_start_again(place: Place) -> None:
    with pytest.raises(UserError, match=r"the first 3 trials have failed, the last with: no such rate"):
        place.run(**{"tune.space": {"train.lr": [1.5, 2.0]}, "train.lr": 1.5})
    assert [state for _, state, _, _ in place.found()] == ["FAIL"] * 3


def test_an_experiment_with_other_params_than_its_trial_is_a_failure(place: Place) -> None:
    search = place.search(**{"tune.trials": 1})
    (place.folder / "done").mkdir()
    changed = {"train.lr": 0.4, "train.epochs": 9, "train.workers": 7, "evaluate.resamples": 5}
    (place.folder / "done/tune-x-0").write_text(json.dumps({"params": changed, "history": ""}))
    search.store.begin({"train.lr": 0.3})
    (trial,) = search.run(StopSignal())
    search.store.close()
    assert trial.state == TrialState.FAIL
    assert "other params (train.epochs, train.lr)" in trial.user_attrs[NOTE]


def test_a_search_waits_for_a_dvc_that_still_has_its_values_in_params_yaml(tmp_path: Path) -> None:
    assert not wait_until_begun(tmp_path, 0)
    log = tmp_path / "x/tune-x-0.log"
    log.parent.mkdir()
    with log.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = ThreadPoolExecutor(1).submit(wait_until_begun, tmp_path, 0.001)
        time.sleep(0.05)
        assert not waiting.done()
        file.write("Reproducing experiment 'tune-x-0'")
        file.flush()
        assert waiting.result()
        assert not wait_until_begun(tmp_path, 0), "it trains"
    log.write_text("")
    assert not wait_until_begun(tmp_path, 0), "it has ended"


def test_dvc_reads_files_of_an_experiment_from_git_s_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the project is below it."""
    asked: list[tuple[str, str]] = []
    api = SimpleNamespace(read=lambda path, rev: asked.append((path, rev)))
    monkeypatch.setitem(sys.modules, "dvc.api", api)
    monkeypatch.setattr("dvc.api", api, raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "a b/c").mkdir(parents=True)
    for folder in ("a b/c", "."):
        monkeypatch.chdir(tmp_path / folder)
        read_output("HEAD", "reports/metrics.json")
    assert asked == [("a b/c/reports/metrics.json", "HEAD"), ("reports/metrics.json", "HEAD")]


def test_dvc_is_told_the_params_in_hydras_grammar() -> None:
    changes = {"train.lr": 1e-05, "train.freeze_bn": True, "model.weights": "runs:/a,b", "train.epochs": 3}
    command = dvc_command(Experiment("tune-x-1", changes, "train", Path()))
    assert command[1:] == [
        *("-m", "dvc", "exp", "run", "--temp", "--name", "tune-x-1"),
        *("-S", "train.lr=1e-05", "-S", "train.freeze_bn=true", "-S", 'model.weights="runs:/a,b"'),
        *("-S", "train.epochs=3", "train"),
    ]


def test_what_is_said_of_a_trial_is_one_line(place: Place) -> None:
    search = place.search(**{"tune.trials": 2})
    lines = [line_of(trial, search.params.tune) for trial in search.run(StopSignal())]
    search.store.close()
    assert lines[:2] == ["trial 0  begins: lr=0.3", f"trial 0  map50 {score(0.3, 3):.4f}"]
    assert all("\n" not in line for line in lines)


def test_what_a_killed_experiment_leaves_is_deleted_and_nothing_else(place: Place) -> None:
    copies = place.folder / ".dvc/tmp/exps/standalone"
    for name, copy in {"tune-x-1": copies / "a", "other": copies / "b", "tune-x-2": place.folder}.items():
        copy.mkdir(parents=True, exist_ok=True)
        info = place.folder / f".dvc/tmp/exps/run/{name}/{name}.run"
        info.parent.mkdir(parents=True)
        info.write_text(json.dumps({"name": name, "root_dir": str(copy)}))
    for name in ("tune-x-1", "tune-x-2", "tune-x-3"):
        remove_copy(name)
    assert sorted(path.name for path in copies.iterdir()) == ["b"]
    kept = place.folder / "checkpoints/kept/deep"
    kept.mkdir(parents=True)
    (place.folder / "checkpoints/cut").mkdir()
    experiment = Experiment("x", {}, "train", place.folder)
    experiment.log.write_text(f"1\ncheckpoints in {kept.parent.parent / 'cut'}\ncheckpoints in {kept}\n")
    remove_checkpoints(experiment, place.folder)
    assert [path.name for path in (place.folder / "checkpoints").iterdir()] == ["kept"]
    assert kept.is_dir()
