"""What is tried next, and what is not worth going on: by the trials and the seed alone."""

import math

import pytest
from default_params import default_params
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ssd.params_space import Value
from ssd.tuning.study import best_trial, epoch_scores, importances, should_prune, suggest, training_value

SPACE = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "kind": CategoricalDistribution(["a", "b"])}


def trial(
    number: int,
    values: dict[str, Value] | None = None,
    value: float | None = None,
    scores: dict[int, float] | None = None,
    state: TrialState = TrialState.COMPLETE,
) -> FrozenTrial:
    found = values or {"lr": 0.01, "kind": "a"}
    made = create_trial(
        state=state, value=value, params=found, distributions=SPACE, intermediate_values=scores or {}
    )
    made.number = number
    return made


def searched(num_trials: int, seed: int, startup_trials: int = 5) -> list[FrozenTrial]:
    """By a score that is best at lr = 1e-3 and kind b."""
    trials: list[FrozenTrial] = []
    for number in range(num_trials):
        values = suggest(trials, SPACE, seed=seed, startup_trials=startup_trials)
        assert isinstance(values["lr"], float)
        score = -abs(math.log10(values["lr"]) + 3) - (values["kind"] == "a")
        trials.append(trial(number, values, score))
    return trials


def test_the_same_trials_and_seed_give_the_same_suggestion_and_another_seed_another() -> None:
    trials = searched(8, seed=0)
    again = suggest(trials, SPACE, seed=0, startup_trials=5)
    assert again == suggest(trials, SPACE, seed=0, startup_trials=5)
    assert again != suggest(trials, SPACE, seed=1, startup_trials=5)
    assert len({found.params["lr"] for found in trials}) == 8


def test_after_its_random_start_a_search_tries_what_scored_well() -> None:
    def distance(found: list[FrozenTrial]) -> float:
        return sum(-(item.value or 0) for item in found) / len(found)

    for seed in range(3):
        trials = searched(24, seed)
        assert distance(trials[12:]) < distance(trials[:5])
        assert distance(trials[12:]) < distance(searched(24, seed, startup_trials=24)[12:])


def test_suggestions_are_made_beside_trials_that_run_failed_and_were_pruned() -> None:
    others = [
        trial(8, state=TrialState.RUNNING),
        trial(9, state=TrialState.FAIL),
        trial(10, scores={1: 0.1}, state=TrialState.PRUNED),
    ]
    found = suggest([*searched(8, seed=0), *others], SPACE, seed=0, startup_trials=5)
    assert found.keys() == SPACE.keys()


def test_a_trial_below_the_median_of_the_finished_ones_is_pruned() -> None:
    finished = [trial(i, value=0.5, scores={1: 0.1 * i, 2: 0.2 * i}) for i in range(1, 6)]
    trials = [trial(0, value=0.0, scores={1: 0.0, 2: 0.0}), *finished]

    def decided(scores: dict[int, float], startup_trials: int = 3, prune_after: int = 1) -> bool:
        running = trial(6, scores=scores, state=TrialState.RUNNING)
        return should_prune([*trials, running], 6, startup_trials=startup_trials, prune_after=prune_after)

    assert decided({1: 0.2})
    assert not decided({1: 0.3})
    assert decided({1: 0.2, 2: 0.3})
    assert not decided({1: 0.6, 2: 0.3}), "its best score counts"
    assert not decided({1: 0.2}, startup_trials=7), "too few have finished"
    assert not decided({1: 0.2}, prune_after=2), "too early"


def test_an_epoch_has_a_score_where_all_parts_of_the_objective_were_measured() -> None:
    rows = [
        {"epoch": 1.0, "val_map50": 0.2, "val_map": 0.1, "val_f1": None},
        {"epoch": 2.0, "val_map50": None, "val_map": None, "val_f1": None},
        {"epoch": 3.0, "val_map50": 0.6, "val_map": 0.3, "val_f1": 0.3},
    ]
    assert epoch_scores(rows, "map50") == {1: 0.2, 3: 0.6}
    assert epoch_scores(rows, "mean") == {3: pytest.approx(0.4)}
    assert epoch_scores(rows, "map50_f1") == {3: pytest.approx(0.45)}


def test_the_value_of_a_training_is_its_best_epoch_or_that_of_its_models_together() -> None:
    rows: list[dict[str, float | None]] = [
        {"epoch": epoch, "val_map50": score, "val_f1": score}
        for epoch, score in ((1, 0.2), (2, 0.6), (3, 0.4))
    ]
    fused = {"num_models": 2, "map50": 0.7, "f1": 0.8, "map": 0.1}
    alone, together = (
        default_params(**{"tune.objective": name}).tune for name in ("map50_f1", "fused_map50_f1")
    )
    assert training_value(rows, None, alone) == pytest.approx(0.6)
    assert training_value(rows, fused, together) == pytest.approx(0.75)
    assert training_value([], None, alone) is None
    assert training_value([], fused | {"f1": None}, together) is None


def test_the_best_trial_is_the_first_with_the_highest_value() -> None:
    trials = [trial(0, value=0.5), trial(1, value=0.7), trial(2, value=0.7), trial(3, state=TrialState.FAIL)]
    found = best_trial(trials)
    assert found is not None and found.number == 1
    assert best_trial(trials[3:]) is None


def test_importance_is_a_share_of_each_key_once_enough_trials_differ() -> None:
    trials = searched(12, seed=0)
    found = importances(trials)
    assert found is not None and found.keys() == SPACE.keys()
    assert sum(found.values()) == pytest.approx(1)
    assert importances(trials[:3]) is None
    assert importances([trial(i, value=0.5) for i in range(9)]) is None
