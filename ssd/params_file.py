"""Reads params.yaml, whatever a person or a program put there, into plain values."""

from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from ssd.errors import UserError
from ssd.params_errors import shortened

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000
"""Aliases counted as often as they are used: nine lines of them can stand for a thousand million values."""


def read_params_file(path: Path) -> object:
    """The content of a YAML file, in YAML 1.2 as DVC reads it: 1e-3 is a number, 010 is ten.

    Raises:
        UserError: the file is missing or not readable, not text in UTF-8, not YAML, has a key twice, or is
            too large; one line.
    """
    try:
        with path.open("rb") as file:
            encoded = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run from the repository's root") from None
    except OSError as error:
        raise UserError(f"{path}: not readable: {error.strerror}") from None
    if len(encoded) > MAX_BYTES:
        raise UserError(f"{path}: longer than {MAX_BYTES:,} bytes; that is no file of params")
    try:
        content = YAML(typ="safe", pure=True).load(encoded.decode())
    except UnicodeDecodeError as error:
        line = encoded.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None
    except Exception as error:  # noqa: BLE001 (ruamel.yaml raises a dozen types)
        raise UserError(f"{path}:{_yaml_problem(error)}") from None
    if _num_values(content) > MAX_VALUES:
        raise UserError(f"{path}: stands for more than {MAX_VALUES:,} values; that is no file of params")
    return content


def _yaml_problem(error: Exception) -> str:
    """Where and why a file is not valid YAML, in one line."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return f" is not YAML: {shortened(str(error))}"
    problem = ", ".join(filter(None, [error.context, error.problem]))
    return f" line {error.problem_mark.line + 1} is not YAML: {shortened(problem)}"


def _num_values(content: object) -> int:
    """The number of values, counted up to a little above MAX_VALUES: aliases may go in a circle."""
    number, waiting = 0, [content]
    while waiting and number <= MAX_VALUES:
        value = waiting.pop()
        number += 1
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
    return number
