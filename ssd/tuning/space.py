"""The search space against the params: which keys it may have, and whether their values are valid."""

from collections.abc import Iterable, Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import ValidationError

from ssd.errors import UserError
from ssd.params import Params
from ssd.params_errors import describe_all
from ssd.params_space import Axis, Range, Value
from ssd.training.selection import MEASURES

KEYS = {"preprocess": {"max_side", "jpeg_quality"}, "model": None, "augment": None, "train": None}
"""Sections that change a model; of preprocess the keys that do, and leave images in their splits."""

NOT_TRIED = {
    *(
        "select_by",
        "seed",
        "val_every",
        "val_batch_size",
        "workers",
        "cache",
        "device",
        "devices",
        "restarts",
    ),
    *("sync_bn", "keep_best", "max_skipped", "checkpoint_minutes", "compile", "deterministic"),
}
"""Keys of train that decide how a model is judged, or how the machine is used.

`f1_score` is not among them: detections below it are not counted, so it belongs to what is judged, as a
threshold belongs to a detector that is used. `check_f1_score` refuses it where the objective has no F1.
"""

F1_SCORE = "train.f1_score"

MOST_FUSED = 20
"""`evaluate.ensemble`, by which the end of a search measures on the test split, allows no more."""

DIGITS = 4
"""Of a number that is drawn: those that a person reads, and that are trained with."""


def check_space(params: Params) -> None:
    """Raise UserError, one line, for a key that cannot be tried or a value that is not valid.

    Each end of a range and each choice is put into the params by itself, so that of several keys that have to
    agree, as model.scale_first and scale_second, a trial may still draw what does not.
    """
    if not params.tune.space:
        raise UserError("found no key; name at least one, with a range or a list", key="tune.space")
    for key, axis in params.tune.space.items():
        section, _, name = key.partition(".")
        known = getattr(params, section, None) if section in KEYS else None
        if known is None or name not in type(known).model_fields:
            raise UserError(f"no such key in {', '.join(KEYS)}", key=f"tune.space.{key}")
        allowed = KEYS[section]
        if (section == "train" and name in NOT_TRIED) or (allowed is not None and name not in allowed):
            raise UserError("changes no model, or how models are judged", key=f"tune.space.{key}")
        for value in (axis.low, axis.high) if isinstance(axis, Range) else axis:
            with_values(params, {key: value})
        step = axis.step if isinstance(axis, Range) else None
        if step is not None and step % 1 and isinstance(value_of(params, key), int):
            raise UserError(
                f"found {step}; allowed: a whole number, as {key} is", key=f"tune.space.{key}.step"
            )
    if F1_SCORE in params.tune.space:
        check_f1_score(params)
    if params.tune.is_fused:
        check_kept(params)


def check_f1_score(params: Params) -> None:
    """Raise UserError where `train.f1_score` is searched and trials cannot be compared by it."""
    objective = params.tune.objective
    if "val_f1" not in MEASURES[params.tune.select_by]:
        raise UserError(f"changes nothing of tune.objective: {objective}", key=f"tune.space.{F1_SCORE}")
    start, *searched = _all_of(params, F1_SCORE)
    best = "0, the best threshold of each class, which no single one beats; set"
    if start == 0:
        raise UserError(f"found {best} the one that the search starts from, such as 0.5", key=F1_SCORE)
    if 0 in searched:
        raise UserError(f"found {best} numbers above 0", key=f"tune.space.{F1_SCORE}")


def check_kept(params: Params) -> None:
    """Raise UserError where trials will not have the models that the objective fuses, or others, too.

    A trial has one for each validation, which are those of every `val_every`-th epoch and of its last.
    """
    train = params.train
    if params.evaluate.models:
        raise UserError(
            f"found {len(params.evaluate.models)}; allowed: [], as tune.objective: fused_map50_f1 measures "
            "the models of a trial alone",
            key="evaluate.models",
        )
    if not 2 <= train.keep_best <= MOST_FUSED:
        raise UserError(
            f"found {train.keep_best}; tune.objective: fused_map50_f1 fuses 2 to {MOST_FUSED} models",
            key="train.keep_best",
        )
    fewest = -(-int(min(_all_of(params, "train.epochs"))) // train.val_every)
    stops = [int(number) + 1 for number in _all_of(params, "train.early_stop") if number > 0]
    fewest = min([fewest, *stops])
    if fewest < train.keep_best:
        raise UserError(
            f"found {train.keep_best}, but a trial may have only {fewest} models to fuse (by train.epochs, "
            "val_every and early_stop)",
            key="train.keep_best",
        )


def _all_of(params: Params, key: str) -> list[float]:
    """The value of a key of numbers, and the ends or choices of its axis if it is searched."""
    axis = params.tune.space.get(key, ())
    searched = (axis.low, axis.high) if isinstance(axis, Range) else axis
    return [float(value) for value in (value_of(params, key), *searched)]


def with_values(params: Params, values: Mapping[str, Value]) -> Params:
    """The params with other values, by their keys as "train.lr".

    Raises:
        UserError: they are not valid.
    """
    content = params.model_dump(exclude={"tune"})
    for key, value in values.items():
        section, _, name = key.partition(".")
        content[section][name] = value
    try:
        return Params.model_validate({**content, "tune": params.tune})
    except ValidationError as error:
        found = [dict(entry) for entry in error.errors()]
        raise UserError(describe_all(found, Params, "tune.space")) from None


def value_of(params: Params, key: str) -> Value:
    """The present value of a key."""
    section, _, name = key.partition(".")
    found: Value = getattr(getattr(params, section), name)
    return found


def distributions(params: Params) -> dict[str, BaseDistribution]:
    """The space as Optuna has it. A range is one of whole numbers where the key's present value is one."""
    return {
        key: _distribution(axis, is_real=isinstance(value_of(params, key), float))
        for key, axis in params.tune.space.items()
    }


def _distribution(axis: Axis, *, is_real: bool) -> BaseDistribution:
    if not isinstance(axis, Range):
        return CategoricalDistribution(axis)
    if is_real:
        return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
    return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))


def start_values(params: Params) -> dict[str, Value]:
    """The present values of the space's keys, whether they lie in it or not."""
    return {key: value_of(params, key) for key in params.tune.space}


def within(values: Mapping[str, Value], space: Mapping[str, BaseDistribution]) -> dict[str, Value]:
    """Those that lie in the space: Optuna learns from no others."""
    return {key: value for key, value in values.items() if _contains(space[key], value)}


def _contains(axis: BaseDistribution, value: Value) -> bool:
    if isinstance(axis, CategoricalDistribution):
        return value in axis.choices
    if isinstance(value, bool | str) or not isinstance(axis, FloatDistribution | IntDistribution):
        return False
    steps = (value - axis.low) / axis.step if axis.step else 0.0
    return axis.low <= value <= axis.high and abs(steps - round(steps)) < 1e-8


def rounded(values: Mapping[str, Value], space: Mapping[str, BaseDistribution]) -> dict[str, Value]:
    """With at most four digits, within the space."""
    return {key: _rounded(value, space[key]) for key, value in values.items()}


def _rounded(value: Value, axis: BaseDistribution) -> Value:
    if not isinstance(axis, FloatDistribution) or not isinstance(value, float):
        return value
    if axis.step is not None:
        return round(value, 10)
    return min(max(float(f"{value:.{DIGITS}g}"), axis.low), axis.high)


def named(values: Mapping[str, Value], keys: Iterable[str] | None = None) -> str:
    """ "lr=0.001 optimizer=adam"; a key with its section where two sections have it."""
    names = list(values if keys is None else keys)
    short = [key.partition(".")[2] for key in names]
    shown = (name if short.count(name) == 1 else key for key, name in zip(names, short, strict=True))
    return " ".join(f"{name}={values[key]}" for name, key in zip(shown, names, strict=True))
