"""Trials on disk: begun with all their values, and there for the next process."""

from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from ssd.tuning.store import CUT, NOTE, SAME_AS, VALUES, Store

SPACE = {"train.lr": FloatDistribution(0.001, 0.1)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that two processes have written, one after the other."""
    path = tmp_path_factory.mktemp("search") / "tune/study.db"
    first = Store(path, SPACE)
    first.keep_run_id("abc")
    assert [first.begin({"train.lr": lr}) for lr in (0.01, 0.5, 0.03)] == [0, 1, 2]
    first.report(0, 1, 0.25)
    first.complete(0, 0.5)
    first.report(1, 1, 0.1)
    first.cut(1, 1)
    first.close()
    second = Store(path, SPACE)
    second.prune(1)
    second.fail(2, "no memory")
    second.repeat(second.trials()[0])
    second.close()
    return path


def test_every_trial_is_there_with_its_values_scores_and_end(path: Path) -> None:
    store = Store(path, SPACE)
    trials = store.trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert [trial.user_attrs[VALUES]["train.lr"] for trial in trials] == [0.01, 0.5, 0.03, 0.01]
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]
    assert [trial.state for trial in trials] == states
    assert trials[0].intermediate_values == {1: 0.25} == trials[3].intermediate_values
    assert (trials[1].user_attrs[CUT], trials[2].user_attrs[NOTE]) == (1, "no memory")
    assert (trials[3].value, trials[3].user_attrs[SAME_AS]) == (0.5, 0)
    assert store.run_id() == "abc"
    store.close()


def test_a_start_outside_of_the_space_is_a_trial_from_which_nothing_is_learned(path: Path) -> None:
    store = Store(path, SPACE)
    assert store.trials()[1].params == {}
    store.close()
