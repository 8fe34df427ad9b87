"""compose.yaml as plain values, and the command lines in it."""

from collections.abc import Mapping
from typing import Any

import yaml
from default_params import REPOSITORY


def content() -> dict[str, Any]:
    """All of compose.yaml; variables are not filled in."""
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    return loaded


def command(service: str, changes: Mapping[str, str]) -> list[str]:
    """How compose starts this service, with addresses and folders of containers replaced by those here.

    Every change must apply, or the test would run another command than the file's.
    """
    words: list[str] = content()["services"][service]["command"]
    for old, new in changes.items():
        assert any(old in word for word in words), f"{old} is not in the command of {service}: {words}"
        words = [word.replace(old, new) for word in words]
    return words
