"""A search by Optuna: what to try next, and whether a trial is worth going on. Values in, values out.

Both depend on the trials so far and on the seed alone, so a search that was killed goes on as if it never
was.
"""

import logging
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import get_param_importances
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from ssd.params import SelectBy, TuneParams
from ssd.params_space import Value
from ssd.training.selection import MEASURES
from ssd.tuning.space import rounded

FEWEST_FOR_IMPORTANCE = 4
"""Trials with a value, below which nothing is said of importance."""

optuna.logging.set_verbosity(logging.ERROR)


def suggest(
    trials: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution], *, seed: int, startup_trials: int
) -> dict[str, Value]:
    """Values for the next trial, by TPE (Bergstra et al., 2011).

    Args:
        trials: all so far; those that run count as bad ones, so that workers do not try the same.
        space: by the params' keys.
        seed: of the search; each trial has random numbers of its own.
        startup_trials: so many are drawn at random.
    """
    sampler = TPESampler(
        n_startup_trials=startup_trials,
        seed=(seed * 1_000_003 + len(trials)) % 2**32,
        constant_liar=True,
    )
    return rounded(_study(trials, sampler).ask(dict(space)).params, space)


def should_prune(
    trials: Sequence[FrozenTrial], number: int, *, startup_trials: int, prune_after: int
) -> bool:
    """Whether a trial's best score so far is below the median of the finished ones at the same epoch.

    Args:
        trials: all, with their scores by epoch as intermediate values.
        number: of the trial.
        startup_trials: none is pruned before so many have finished.
        prune_after: nor in its first epochs, less than these.
    """
    pruner = MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=prune_after)
    return bool(pruner.prune(_study(trials), trials[number]))


def importances(trials: Sequence[FrozenTrial]) -> dict[str, float] | None:
    """How much of the spread of the values each key explains, by PED-ANOVA, in sum 1, the largest first.

    None where too few trials have a value, or all have the same.
    """
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(finished) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in finished}) == 1:
        return None
    return get_param_importances(_study(finished))


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The one with the highest value, of equal ones the earliest; None where none has one."""
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)


def epoch_scores(rows: Sequence[Mapping[str, float | None]], select_by: SelectBy) -> dict[int, float]:
    """The validation score of each epoch that has one, by epoch, from the rows of a training's history."""
    scores: dict[int, float] = {}
    for row in rows:
        values = [row[name] for name in MEASURES[select_by]]
        known = [value for value in values if value is not None]
        epoch = row["epoch"]
        if epoch is not None and len(known) == len(values):
            scores[int(epoch)] = sum(known) / len(known)
    return scores


def training_value(
    rows: Sequence[Mapping[str, float | None]], fused: Mapping[str, float | None] | None, tune: TuneParams
) -> float | None:
    """The objective on val of a training that has ended; None where val has no images, or no objects.

    Args:
        rows: of its history.
        fused: the scores of its best models, fused, where the objective is of these.
        tune: the `tune` section.
    """
    if not tune.is_fused:
        return max(epoch_scores(rows, tune.select_by).values(), default=None)
    assert fused is not None, "the objective is of these"
    values = [fused[name.removeprefix("val_")] for name in MEASURES[tune.select_by]]
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _study(trials: Sequence[FrozenTrial], sampler: Any = None) -> optuna.Study:
    """In memory, with these trials."""
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(trials)
    return study
