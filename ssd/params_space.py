"""The search space of `python -m stages.tune`, `tune.space` of params.yaml, as typed values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ssd.params_errors import not_allowed

Value = bool | int | float | str
FORM = "a list of values, or {low: , high: } with log: true or step: "


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log`: drawn by their logarithm; `step`: from low."""

    low: float
    high: float
    log: bool = False
    step: float | None = None


Choices = tuple[Value, ...]
Axis = Range | Choices
"""What a key may be."""


def read_space(content: object) -> dict[str, Axis]:
    """The axes by their keys, "section.name", as YAML has them.

    Raises:
        PydanticCustomError: an axis is neither a range nor a list, or a range has no inside.
    """
    if not isinstance(content, Mapping):
        raise not_allowed("", repr(content), "keys like train.lr, each with a range or a list")
    return {str(key): _read_axis(str(key), axis) for key, axis in content.items()}


def as_content(space: Mapping[str, Axis]) -> dict[str, object]:
    """What `read_space` reads, as YAML has it."""
    return {
        key: {name: value for name, value in asdict(axis).items() if value is not None and value is not False}
        if isinstance(axis, Range)
        else list(axis)
        for key, axis in space.items()
    }


def _read_axis(key: str, content: object) -> Axis:
    if isinstance(content, list):
        return _read_choices(key, content)
    if not isinstance(content, Mapping) or not {"low", "high"} <= content.keys():
        raise not_allowed(key, repr(content), FORM)
    if others := sorted(str(name) for name in content if name not in ("low", "high", "log", "step")):
        raise not_allowed(f"{key}.{others[0]}", repr(content[others[0]]), "low, high, log and step alone")
    return _read_range(key, content)


def _read_choices(key: str, content: list[Any]) -> Choices:
    for value in content:
        if not isinstance(value, Value):
            raise not_allowed(key, repr(value), "choices that are numbers, texts, true or false")
    if len(content) < 2 or len(set(content)) < len(content):
        raise not_allowed(key, repr(content), "at least two choices, each once")
    return tuple(content)


def _read_range(key: str, content: Mapping[str, Any]) -> Range:
    for name in ("low", "high", "step"):
        value = content.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
            raise not_allowed(f"{key}.{name}", repr(value), "a number")
    found = Range(content["low"], content["high"], content.get("log", False), content.get("step"))
    if not isinstance(found.log, bool):
        raise not_allowed(f"{key}.log", repr(found.log), "true or false")
    if not found.low < found.high:
        raise not_allowed(f"{key}.high", found.high, f"above low ({found.low})")
    if found.log and found.low <= 0:
        raise not_allowed(f"{key}.low", found.low, "above 0 where log is true")
    if found.step is not None and (found.log or not _divides(found.step, found.high - found.low)):
        raise not_allowed(f"{key}.step", found.step, "a divisor of high - low, and not with log")
    return found


def _divides(step: float, width: float) -> bool:
    number = width / step if step > 0 else 0.0
    return number >= 1 and abs(number - round(number)) < 1e-6
