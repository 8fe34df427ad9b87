"""Messages about an invalid params.yaml, one line per mistake: key, what was found, what is allowed."""

import difflib
from typing import Any, cast, get_args

from pydantic import BaseModel
from pydantic_core import PydanticCustomError
from ruamel.yaml.error import MarkedYAMLError

MAX_SHOWN = 200
"""Longest value shown in a message, in characters."""


def not_allowed(key: str, found: object, allowed: str) -> PydanticCustomError:
    """The error that a validator raises: for `key` of the validated section, or "" for the value itself."""
    context = {"key": key, "found": str(found), "allowed": allowed}
    return PydanticCustomError("not_allowed", "{key}: found {found}; allowed: {allowed}", context)


def yaml_problem(error: Exception) -> str:
    """Where and why a file is not valid YAML, in one line."""
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    problem = error.problem if isinstance(error, MarkedYAMLError) else None
    line = f" line {mark.line + 1}" if mark else ""
    return f"{line} is not YAML: {_shortened(' '.join(str(problem or error).split()))}"


def describe(error: dict[str, Any], params: type[BaseModel]) -> str:
    """One line for an error of pydantic's: key, what was found, what is allowed.

    Args:
        error: one of `ValidationError.errors()`.
        params: the model that refused its input, of sections.
    """
    location = [str(part) for part in error["loc"]]
    if error["type"] == "not_allowed":
        key, found, allowed = (error["ctx"][name] for name in ("key", "found", "allowed"))
        return f"{'.'.join(filter(None, [*location, key]))}: found {found}; allowed: {allowed}"
    key = ".".join(location)
    if error["type"] == "extra_forbidden":
        known = _known_keys(params, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return f"{key}: unknown key{hint}; allowed: {', '.join(known)}"
    allowed = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    if error["type"] == "missing":
        return f"{key}: missing; every key is required"
    return f"{key}: found {_shortened(repr(error['input']))}; allowed: {allowed}"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _known_keys(params: type[BaseModel], section: list[str]) -> list[str]:
    model = params
    for name in section:
        annotation = model.model_fields[name].annotation
        assert annotation is not None and not get_args(annotation), "sections are plain models"
        model = cast(type[BaseModel], annotation)
    return list(model.model_fields)
