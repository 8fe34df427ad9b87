"""The search of `python -m stages.tune`: asks for values, runs trials as experiments, keeps their scores."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from ssd.errors import UserError
from ssd.interrupt import StopSignal
from ssd.params import Params, TuneParams
from ssd.params_space import Value
from ssd.tuning.space import distributions, named, start_values
from ssd.tuning.store import CUT, NOTE, SAME_AS, VALUES, Store
from ssd.tuning.study import epoch_scores, should_prune, suggest, training_value
from stages.command import workspace
from stages.experiment import (
    Experiment,
    Ways,
    failure_reason,
    final_history,
    fused_scores,
    is_alive,
    live_history,
    other_params,
    remove_checkpoints,
)
from stages.pool import Pool

FEWEST_FAILED = 3
"""Trials that fail, with none that does not, after which the search stops."""

ENDED_WELL = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Search:
    """A search, and what it works with.

    name: begins the names of its experiments; folder: of its files; seen: by experiment, when its history was
    last written; cut: experiments that are not worth going on.
    """

    params: Params
    name: str
    folder: Path
    store: Store
    pool: Pool
    seen: dict[str, int] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)

    @property
    def ways(self) -> Ways:
        return self.pool.ways

    def run(self, stop: StopSignal) -> Iterator[FrozenTrial]:
        """Yield each trial when it begins and when it has ended, until as many have as the params say.

        Trials that an earlier process has begun go on first. A signal ends those that run, in a way that they
        can go on, and raises KeyboardInterrupt.

        Raises:
            UserError: all trials fail.
        """
        ended: list[FrozenTrial] = []
        waiting = [trial.number for trial in self.store.trials() if trial.state == TrialState.RUNNING]
        try:
            with stop.held():
                while not stop.received:
                    for experiment in self.pool.ended():
                        trial = self.conclude(experiment)
                        ended.append(trial)
                        yield trial
                    stop_if_all_failed(ended)
                    self.watch()
                    if self.pool.has_room():
                        number = waiting.pop(0) if waiting else self.next_number(ended)
                        if number is not None:
                            trial = self.begin(self.store.trials()[number])
                            ended += [trial] if trial.state != TrialState.RUNNING else []
                            yield trial
                            continue
                        if not self.pool.running:
                            return
                    time.sleep(self.pool.pause)
            raise KeyboardInterrupt
        finally:
            self.pool.stop()

    def experiment(self, trial: FrozenTrial) -> Experiment:
        """Of a trial, or of the one that had its values: train alone, so that no test image is read."""
        number = trial.user_attrs.get(SAME_AS, trial.number)
        changes = {**trial.user_attrs[VALUES], "train.select_by": self.params.tune.select_by}
        return Experiment(f"{self.name}-{number}", changes, "train", self.folder)

    def next_number(self, ended: Sequence[FrozenTrial]) -> int | None:
        """Of a new trial, that has its value at once where another had the same values; None for not now.

        The first one is the start. If it failed in an earlier process, it is tried again.
        """
        trials, tune = self.store.trials(), self.params.tune
        if len(trials) >= tune.trials:
            return None
        start = start_values(self.params)
        known = {TrialState.RUNNING, *ENDED_WELL}
        if not ended and not any(is_of(trial, start) and trial.state in known for trial in trials):
            return self.store.begin(start)
        space = distributions(self.params)
        values = suggest(trials, space, seed=tune.seed, startup_trials=tune.startup_trials)
        same = [trial for trial in trials if is_of(trial, values) and trial.state in known]
        if not same:
            return self.store.begin(values)
        # Two trainings of the same would share their checkpoints: wait for the one that runs.
        return None if same[0].state == TrialState.RUNNING else self.store.repeat(same[0])

    def begin(self, trial: FrozenTrial) -> FrozenTrial:
        """Run it, unless it has ended: with a value at once, or while no process looked."""
        experiment = self.experiment(trial)
        if trial.state != TrialState.RUNNING:
            return trial
        is_over = CUT in trial.user_attrs or self.ways.find(experiment.name) is not None
        if is_over and not is_alive(experiment):
            return self.conclude(experiment)
        self.pool.start(experiment)
        return trial

    def watch(self) -> None:
        """Keep the scores of the epochs that have ended, and stop trials that are not worth going on."""
        for name, experiment in self.pool.running.items():
            written = experiment.history.stat().st_mtime_ns if experiment.history.is_file() else 0
            if self.seen.get(name, -1) != written:
                self.seen[name] = written
                trial = self.trial_of(experiment)
                if CUT not in trial.user_attrs:
                    self.keep_scores(trial, live_history(experiment))
                if CUT in self.trial_of(experiment).user_attrs:
                    self.cut.add(name)
            if name in self.cut:
                self.pool.interrupt(name)

    def keep_scores(self, trial: FrozenTrial, rows: list[dict[str, float | None]]) -> None:
        """Keep those of the epochs that are new, up to one after which the trial is not worth going on.

        That one depends on scores alone, not on how far the training got until it was looked at.
        """
        tune = self.params.tune
        scores = epoch_scores(rows, tune.select_by)
        for epoch, score in scores.items():
            if epoch in trial.intermediate_values:
                continue
            self.store.report(trial.number, epoch, score)
            if epoch < self.num_epochs(trial) and should_prune(
                self.store.trials(),
                trial.number,
                startup_trials=tune.startup_trials,
                prune_after=tune.prune_after,
            ):
                self.store.cut(trial.number, epoch)
                break

    def num_epochs(self, trial: FrozenTrial) -> int:
        """Of a trial, where they are searched, too."""
        return int(trial.user_attrs[VALUES].get("train.epochs", self.params.train.epochs))

    def conclude(self, experiment: Experiment) -> FrozenTrial:
        """End the trial of an experiment that has ended."""
        trial, revision = self.trial_of(experiment), self.ways.find(experiment.name)
        if revision is None:
            if CUT in trial.user_attrs:
                remove_checkpoints(experiment, workspace())  # first: of a trial that has ended, nobody would
                self.store.prune(trial.number)
            else:
                self.store.fail(trial.number, failure_reason(experiment))
            return self.trial_of(experiment)
        if others := other_params(experiment, self.params, self.ways, revision):
            self.store.fail(trial.number, others)
            return self.trial_of(experiment)
        rows: list[dict[str, float | None]] = []
        if CUT not in trial.user_attrs:
            rows = final_history(experiment, self.ways, revision)
            self.keep_scores(trial, rows)
        if CUT in self.trial_of(experiment).user_attrs:
            self.store.prune(trial.number)
            return self.trial_of(experiment)
        tune = self.params.tune
        value = training_value(rows, fused_scores(self.ways, revision) if tune.is_fused else None, tune)
        if value is not None:
            self.store.complete(trial.number, value)
        else:
            self.store.fail(trial.number, "no epoch has a validation score: val has no images, or no objects")
        return self.trial_of(experiment)

    def trial_of(self, experiment: Experiment) -> FrozenTrial:
        """As it is in the store now."""
        return self.store.trials()[int(experiment.name.rpartition("-")[2])]


def is_of(trial: FrozenTrial, values: dict[str, Value]) -> bool:
    """Whether it has these values."""
    return bool(trial.user_attrs[VALUES] == values)


def stop_if_all_failed(ended: Sequence[FrozenTrial]) -> None:
    """Raise UserError if all trials have failed, and these are enough to say so."""
    if len(ended) >= FEWEST_FAILED and all(trial.state == TrialState.FAIL for trial in ended):
        note = ended[-1].user_attrs[NOTE]
        raise UserError(f"the first {len(ended)} trials have failed, the last with: {note}")


def line_of(trial: FrozenTrial, tune: TuneParams) -> str:
    """What to say of a trial that has begun or ended."""
    values = named(trial.user_attrs[VALUES])
    text = {
        TrialState.RUNNING: lambda: f"begins: {values}",
        TrialState.COMPLETE: lambda: f"{tune.objective} {trial.value:.4f}",
        TrialState.PRUNED: lambda: (
            f"pruned after epoch {trial.last_step}, {tune.select_by} {best_score(trial):.4f}"
        ),
        TrialState.FAIL: lambda: f"failed: {trial.user_attrs.get(NOTE, '')}",
    }[trial.state]()
    same = f" (as trial {trial.user_attrs[SAME_AS]}: {values})" if SAME_AS in trial.user_attrs else ""
    return f"trial {trial.number}  {text}{same}"


def best_score(trial: FrozenTrial) -> float:
    """The highest of its epochs."""
    return max(trial.intermediate_values.values())
