"""Messages about an invalid params.yaml, one line per mistake: key, what was found, what is allowed."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

MAX_SHOWN = 200
"""Longest key or value shown in a message, in characters."""

MAX_KEYS = 10
MAX_PROBLEMS = 10
"""How many of them are listed."""


def not_allowed(key: str, found: object, allowed: str) -> PydanticCustomError:
    """The error that a validator raises: for `key` of the validated section, or "" for the value itself."""
    context = {"key": key, "found": str(found), "allowed": allowed}
    return PydanticCustomError("not_allowed", "{key}: found {found}; allowed: {allowed}", context)


def describe_all(errors: Sequence[Mapping[str, Any]], params: type[BaseModel], file: str) -> str:
    """One line for each of pydantic's errors, or the first ten: file, key, what was found, what is allowed.

    Args:
        errors: `ValidationError.errors()`.
        params: the model that refused its input, of sections.
        file: its name.
    """
    lines = [f"{file}: {_describe(error, params)}" for error in errors[:MAX_PROBLEMS]]
    num_others = len(errors) - len(lines)
    return "\n".join([*lines, *([f"{file}: and {num_others:,} more mistakes"] if num_others else [])])


def shortened(text: str) -> str:
    """A text in one line of at most 200 characters."""
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _describe(error: Mapping[str, Any], params: type[BaseModel]) -> str:
    location = [str(part) for part in error["loc"]]
    if error["type"] == "not_allowed":
        key, found, allowed = (error["ctx"][name] for name in ("key", "found", "allowed"))
        return f"{'.'.join(filter(None, [*location, key]))}: found {shortened(found)}; allowed: {allowed}"
    key = shortened(".".join(location))
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{_hint(params, location)}"
    if error["type"] == "missing":
        return f"{key}: missing; every key is required"
    if error["type"] == "model_type":
        return f"{key}: found {shortened(repr(error['input']))}; allowed: a section of keys"
    allowed = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{key}: found {shortened(repr(error['input']))}; allowed: {allowed}"


def _hint(params: type[BaseModel], location: list[str]) -> str:
    """What an unknown key may have meant: one of the same name in another section, one alike, or any."""
    *section, name = location
    known = _known_keys(params, section)
    near = difflib.get_close_matches(name[:MAX_SHOWN], known, n=1)
    elsewhere = [f"{other}.{name}" for other in params.model_fields if name in _known_keys(params, [other])]
    if near or elsewhere:
        return f" (did you mean {(elsewhere or near)[0]}?)"
    others = f" and {len(known) - MAX_KEYS} more" if len(known) > MAX_KEYS else ""
    return f"; allowed: {', '.join(known[:MAX_KEYS])}{others}"


def _known_keys(params: type[BaseModel], section: list[str]) -> list[str]:
    model = params
    for name in section:
        annotation = model.model_fields[name].annotation
        assert annotation is not None and not get_args(annotation), "sections are plain models"
        model = cast(type[BaseModel], annotation)
    return list(model.model_fields)
