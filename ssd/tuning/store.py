"""The trials of a search on disk: an SQLite file of Optuna's, which `optuna-dashboard` shows, too.

A trial begins, with all its values, in one transaction, and ends in one: a process that is killed leaves no
half of either. Nothing beats in it: which trials still run is known by their processes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ssd.params_space import Value
from ssd.tuning.space import within

NAME, RUN = "tune", "mlflow_run"
VALUES, SAME_AS, NOTE, CUT = "values", "same_as", "note", "cut"
"""Attributes of a trial: all its values; the trial that had them before; why it failed; the epoch after which
it was found not worth going on."""


class Store:
    """The trials of one search.

    Args:
        path: of the file, created if it does not exist.
        space: by the params' keys.
    """

    def __init__(self, path: Path, space: Mapping[str, BaseDistribution]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._space = dict(space)
        self._storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
        optuna.create_study(storage=self._storage, study_name=NAME, direction="maximize", load_if_exists=True)
        self._id = self._storage.get_study_id_from_name(NAME)

    def trials(self) -> list[FrozenTrial]:
        """All, by their numbers, from 0."""
        return self._storage.get_all_trials(self._id)

    def begin(self, values: Mapping[str, Value]) -> int:
        """A new trial that runs; its number."""
        return self._add(TrialState.RUNNING, values, {})

    def repeat(self, trial: FrozenTrial) -> int:
        """A new trial that ends as a former one with the same values did; its number."""
        attributes = {SAME_AS: trial.number}
        scores = trial.intermediate_values
        return self._add(trial.state, trial.user_attrs[VALUES], attributes, trial.value, scores)

    def report(self, number: int, epoch: int, score: float) -> None:
        """Keep the validation score of an epoch."""
        self._storage.set_trial_intermediate_value(self._trial_id(number), epoch, score)

    def cut(self, number: int, epoch: int) -> None:
        """Keep that a trial is not worth going on after this epoch, before it is stopped."""
        self._storage.set_trial_user_attr(self._trial_id(number), CUT, epoch)

    def complete(self, number: int, value: float) -> None:
        """End it with its value."""
        self._end(number, TrialState.COMPLETE, value)

    def prune(self, number: int) -> None:
        """End one that was cut."""
        self._end(number, TrialState.PRUNED)

    def fail(self, number: int, note: str) -> None:
        """End one that has no value, and why."""
        self._storage.set_trial_user_attr(self._trial_id(number), NOTE, note)
        self._end(number, TrialState.FAIL)

    def run_id(self) -> str:
        """Of the search's MLflow run; "" for none."""
        return str(self._storage.get_study_user_attrs(self._id).get(RUN, ""))

    def keep_run_id(self, run_id: str) -> None:
        """For the next process that goes on with this search."""
        self._storage.set_study_user_attr(self._id, RUN, run_id)

    def close(self) -> None:
        """Close the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _add(
        self,
        state: TrialState,
        values: Mapping[str, Value],
        attributes: Mapping[str, Any],
        value: float | None = None,
        scores: Mapping[int, float] | None = None,
    ) -> int:
        known = within(values, self._space)
        trial = create_trial(
            state=state,
            value=value,
            params=known,
            distributions={key: self._space[key] for key in known},
            user_attrs={VALUES: dict(values), **attributes},
            intermediate_values=dict(scores or {}),
        )
        return self._storage.get_trial(self._storage.create_new_trial(self._id, trial)).number

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _end(self, number: int, state: TrialState, value: float | None = None) -> None:
        values = None if value is None else [value]
        self._storage.set_trial_state_values(self._trial_id(number), state, values)
