"""Summarises a cross-validation: mean and standard deviation of metrics over the experiments of its folds."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CLASS_FIGURES = ("coco_ap", "coco_ap50", "voc_ap_area")
"""Metrics per class in the text; the JSON contains all."""

State = Literal["finished", "running", "queued", "failed", "without figures"]

STATE_TEXT = {
    "running": "is running",
    "queued": "is queued",
    "failed": "failed",
    "without figures": "finished without figures",
}


@dataclass(frozen=True)
class Experiment:
    """One run of the pipeline, finished or not.

    revision: git's commit of it; created: ISO time, "" where unknown; params: all sections; metrics: content
    of reports/metrics.json (values may be missing or None), empty unless `state` is "finished".
    """

    name: str
    revision: str
    created: str
    state: State
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]

    @property
    def num_folds(self) -> int:
        return int(self.params.get("data", {}).get("folds", 0))

    @property
    def fold(self) -> int:
        return int(self.params.get("data", {}).get("fold", 0))


@dataclass(frozen=True)
class Spread:
    """A metric over the folds that have it: mean, sample standard deviation (None for one fold), values."""

    mean: float
    std: float | None
    values: dict[int, float]


@dataclass(frozen=True)
class CrossValidation:
    """Experiments that differ in nothing but data.fold.

    params: common to all, without data.fold; finished: by fold, the newest if a fold was repeated; repeated:
    the older ones, which are not used; unfinished: running and queued ones, and failed ones whose fold has
    no finished experiment.
    """

    num_folds: int
    params: dict[str, Any]
    finished: dict[int, Experiment]
    repeated: list[Experiment]
    unfinished: list[Experiment]

    @property
    def missing(self) -> list[int]:
        """The folds that have no metrics, for whatever reason."""
        return [fold for fold in range(self.num_folds) if fold not in self.finished]

    @property
    def created(self) -> str:
        return max(item.created for item in [*self.finished.values(), *self.unfinished])


def cross_validations(experiments: Sequence[Experiment]) -> list[CrossValidation]:
    """Group experiments into cross-validations, the one with the newest experiment last.

    Experiments without folds (data.folds below 2) are left out.
    """
    sets: dict[str, list[Experiment]] = {}
    for item in experiments:
        if item.num_folds > 1:
            sets.setdefault(json.dumps(_without_fold(item.params), sort_keys=True), []).append(item)
    return sorted((_one_set(items) for items in sets.values()), key=lambda found: found.created)


def _one_set(experiments: Sequence[Experiment]) -> CrossValidation:
    newest_first = sorted(experiments, key=lambda item: item.created, reverse=True)
    # From oldest to newest, so that the newest experiment of a fold replaces older ones.
    finished = {item.fold: item for item in newest_first[::-1] if item.state == "finished"}
    unfinished = [
        item
        for item in newest_first
        if item.state in ("running", "queued") or (item.state != "finished" and item.fold not in finished)
    ]
    return CrossValidation(
        num_folds=experiments[0].num_folds,
        params=_without_fold(experiments[0].params),
        finished=dict(sorted(finished.items())),
        repeated=[
            item for item in newest_first if item.state == "finished" and item is not finished[item.fold]
        ],
        unfinished=sorted(unfinished, key=lambda item: item.fold),
    )


def _without_fold(params: Mapping[str, Any]) -> dict[str, Any]:
    return {**params, "data": {key: value for key, value in params["data"].items() if key != "fold"}}


def figures(validation: CrossValidation) -> dict[str, Spread]:
    """Every metric that is not per class, named as in "coco map50"; counts are excluded."""
    return _spreads({fold: _figures_of(item.metrics) for fold, item in validation.finished.items()})


def class_figures(validation: CrossValidation) -> dict[str, dict[str, Spread]]:
    """Class -> metric (such as "coco_ap") -> its spread over the folds that have objects of the class."""
    per_class = {
        fold: {figures["class"]: figures for figures in item.metrics.get("per_class", [])}
        for fold, item in validation.finished.items()
    }
    names = dict.fromkeys(name for classes in per_class.values() for name in classes)
    return {
        name: _spreads({fold: _numbers(classes.get(name, {})) for fold, classes in per_class.items()})
        for name in names
    }


def _figures_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    found = _numbers(metrics)
    for group, values in metrics.items():
        if isinstance(values, Mapping):
            found |= {f"{group} {key}": value for key, value in _numbers(values).items()}
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that can be averaged: without None (no object in this fold) and without counts."""
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, int | float) and not key.startswith("num_")
    }


def _spreads(by_fold: Mapping[int, Mapping[str, float]]) -> dict[str, Spread]:
    names = dict.fromkeys(name for values in by_fold.values() for name in values)
    return {
        name: _spread({fold: values[name] for fold, values in by_fold.items() if name in values})
        for name in names
    }


def _spread(values: dict[int, float]) -> Spread:
    numbers = list(values.values())
    std = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Spread(statistics.fmean(numbers), std, values)


def as_json(validation: CrossValidation) -> dict[str, Any]:
    """The summary as JSON: plain dictionaries, lists and numbers."""

    def spreads(found: Mapping[str, Spread]) -> dict[str, Any]:
        return {
            name: {"mean": spread.mean, "std": spread.std, "values": spread.values}
            for name, spread in found.items()
        }

    return {
        "num_folds": validation.num_folds,
        "params": validation.params,
        "finished": {fold: item.name for fold, item in validation.finished.items()},
        "missing": validation.missing,
        "unfinished": [
            {"fold": item.fold, "experiment": item.name, "state": item.state}
            for item in validation.unfinished
        ],
        "repeated": [{"fold": item.fold, "experiment": item.name} for item in validation.repeated],
        "figures": spreads(figures(validation)),
        "per_class": {name: spreads(found) for name, found in class_figures(validation).items()},
    }


def as_text(validation: CrossValidation) -> str:
    """The summary as text: which folds were found, and two tables."""
    parts = [_status(validation)]
    spreads = figures(validation)
    if spreads:
        rows = [
            [
                name,
                f"{spread.mean:.4f}",
                "-" if spread.std is None else f"{spread.std:.4f}",
                _list(spread.values),
            ]
            for name, spread in spreads.items()
        ]
        parts.append(_table([["", "mean", "std", "folds"], *rows]))
    classes = class_figures(validation)
    if classes:
        shown = [key for key in CLASS_FIGURES if any(key in found for found in classes.values())]
        rows = [[name, *(_mean_and_std(found.get(key)) for key in shown)] for name, found in classes.items()]
        parts.append(_table([["class", *shown], *rows]))
    return "\n\n".join(parts)


def different_params(validations: Sequence[CrossValidation]) -> list[str]:
    """Per cross-validation, the parameters that differ, as in "data.folds=5 train.lr=0.01"."""
    flat = [
        {
            f"{section}.{key}": value
            for section, values in item.params.items()
            for key, value in values.items()
        }
        for item in validations
    ]
    names = dict.fromkeys(name for params in flat for name in params)
    differ = [name for name in names if any(params.get(name) != flat[0].get(name) for params in flat)]
    return [" ".join(f"{name}={params.get(name)}" for name in differ) for params in flat]


def _status(validation: CrossValidation) -> str:
    finished = validation.finished
    lines = [f"folds found: {_list(finished) or 'none'} of {validation.num_folds}"]
    for item in validation.unfinished:
        again = " once more" if item.fold in finished else ""
        lines.append(f"fold {item.fold} {STATE_TEXT[item.state]}{again}: {item.name}")
    for item in validation.repeated:
        counted = finished[item.fold].name
        lines.append(f"fold {item.fold} was repeated: the newest counts, {counted}, not {item.name}")
    absent = set(validation.missing) - {item.fold for item in validation.unfinished}
    if absent:
        lines.append(f"missing and not queued: fold {_list(sorted(absent))}")
    if finished and validation.missing:
        lines.append("the figures are of some folds only")
    return "\n".join(lines)


def _list(folds: Iterable[int]) -> str:
    return ", ".join(map(str, folds))


def _mean_and_std(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.4f}" + ("" if spread.std is None else f" +- {spread.std:.4f}")


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A text table; the first column is left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )
