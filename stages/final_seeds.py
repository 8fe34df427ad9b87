"""The end of a search: start and best values are trained by several seeds, and measured on the test split.

Until here nothing has read it. The seeds are others than the search's, with which its winner was lucky, too.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from ssd.errors import UserError
from ssd.interrupt import StopSignal
from ssd.params import Params
from ssd.params_space import Value
from ssd.tuning.study import training_value
from ssd.tuning.verdict import Verdict, figure_on_test
from stages.experiment import Experiment, failure_reason, final_history, fused_scores, is_alive, other_params
from stages.pool import Pool

METRICS = "reports/metrics.json"


@dataclass(frozen=True)
class Figures:
    """Of a training: its seed, the objective on val and on test, and the name of the experiment."""

    seed: int
    val: float
    test: float
    experiment: str


def seed_experiments(
    params: Params, name: str, values: Mapping[str, Value], folder: Path
) -> list[Experiment]:
    """One for each seed, up to the stage evaluate.

    Args:
        params: of the start; name: begins those of the experiments; values: what differs from the params.
        folder: for their logs.
    """
    seeds = [params.train.seed + 1 + number for number in range(params.tune.seeds)]
    judged = {**values, "train.select_by": params.tune.select_by}
    if params.tune.is_fused:
        judged["evaluate.ensemble"] = params.train.keep_best
    return [
        Experiment(f"{name}-seed{seed}", {**judged, "train.seed": seed}, "evaluate", folder) for seed in seeds
    ]


def run_all(
    experiments: Sequence[Experiment], pool: Pool, stop: StopSignal, say: Callable[[str], None]
) -> None:
    """Run those that have not ended well before.

    Raises:
        UserError: one has failed.
        KeyboardInterrupt: a signal has come; those that ran can go on.
    """
    waiting = [item for item in experiments if is_alive(item) or pool.ways.find(item.name) is None]
    try:
        with stop.held():
            while (waiting or pool.running) and not stop.received:
                for ended in pool.ended():
                    if pool.ways.find(ended.name) is None:
                        raise UserError(
                            f"{ended.name} failed: {failure_reason(ended)}; its log is {ended.log}"
                        )
                    say(f"{ended.name} has ended")
                if waiting and pool.has_room():
                    say(f"{waiting[0].name} begins")
                    pool.start(waiting.pop(0))
                time.sleep(pool.pause)
        if stop.received:
            raise KeyboardInterrupt
    finally:
        pool.stop()


def read_figures(experiment: Experiment, params: Params, pool: Pool) -> Figures:
    """Of an experiment that has ended well.

    Raises:
        UserError: it ran with other params than it was to.
    """
    revision = pool.ways.find(experiment.name)
    assert revision is not None, "it has ended well"
    if others := other_params(experiment, params, pool.ways, revision):
        raise UserError(f"{experiment.name} {others}; `dvc exp remove {experiment.name}`, then start again")
    tune = params.tune
    fused = fused_scores(pool.ways, revision) if tune.is_fused else None
    val = training_value(final_history(experiment, pool.ways, revision), fused, tune)
    assert val is not None, "trials of the same data have one"
    metrics = json.loads(pool.ways.read(revision, METRICS))
    seed = experiment.changes["train.seed"]
    assert isinstance(seed, int)
    return Figures(seed, val, figure_on_test(metrics, tune), experiment.name)


def table(found: Mapping[str, Sequence[Figures]], objective: str) -> str:
    """Lines of val and test by seed, with mean and standard deviation.

    Args:
        found: what was trained, by "start" and "best".
        objective: what the figures are.
    """
    columns = [(what, split) for split in ("val", "test") for what in found]
    values = {(what, split): [getattr(item, split) for item in found[what]] for what, split in columns}
    lines = ["seed".ljust(10) + "".join(f"{split} {what}".rjust(14) for what, split in columns)]
    for number, item in enumerate(next(iter(found.values()))):
        lines.append(_row(str(item.seed), [values[column][number] for column in columns]))
    lines.append(_row("mean", [fmean(values[column]) for column in columns]))
    lines.append(_row("deviation", [stdev(values[column]) for column in columns]))
    return "\n".join([f"{objective}, standard deviation over seeds", *lines])


def _row(name: str, values: Sequence[float]) -> str:
    return name.ljust(10) + "".join(f"{value:14.4f}" for value in values)


def sentence(found: Verdict, objective: str, num_seeds: int) -> str:
    """The verdict in words."""
    interval = f"95 % interval {found.low:+.4f} to {found.high:+.4f}"
    told = f"{found.difference:+.4f} ({interval}, {num_seeds} seeds each)"
    if found.is_better:
        return f"the best values beat the start by more than the spread: test {objective} {told}"
    return f"no difference claimed: test {objective} of the best values less that of the start is {told}"
