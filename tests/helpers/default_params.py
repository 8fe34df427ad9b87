"""A params.yaml for tests: the default recipe, whatever the repository's own params.yaml holds now."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ssd.params import AugmentParams, Params

REPOSITORY = Path(__file__).parents[2]


def default_params(**changes: object) -> Params:
    """The default with changes: default_params(**{"train.lr": 0.1})."""
    return Params.model_validate(default_content(**changes))


def default_content(**changes: object) -> dict[str, dict[str, object]]:
    """The same as plain dictionaries: section, key, value."""
    content = copy.deepcopy(_defaults())
    for name, value in changes.items():
        section, key = name.split(".")
        content[section][key] = value
    return content


@cache
def _defaults() -> dict[str, dict[str, object]]:
    """Read once: it takes a tenth of a second, and hundreds of tests ask for it."""
    content = read_yaml(REPOSITORY / "params.yaml")
    for section, values in read_yaml(REPOSITORY / "recipes/default.yaml").items():
        content[section].update(values)
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of YAML 1.2, in which 4e-05 is a number; PyYAML reads text."""
    content: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return content


def default_text(**changes: object) -> str:
    """The same as a file's text, one key per line."""
    lines = []
    for section, values in default_content(**changes).items():
        lines.append(f"{section}:")
        lines += [f"  {key}: {in_yaml(value)}" for key, value in values.items()]
    return "\n".join([*lines, ""])


def in_yaml(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


OFF = dict.fromkeys(
    (
        "flip",
        "zoom_out",
        "crop",
        "object_crop",
        "resized_crop",
        "photometric",
        "channel_shuffle",
        "mosaic",
        "mixup",
    ),
    0.0,
)
"""Every probability of the section `augment`."""


def augment_params(policy: str = "ssd", **changes: object) -> AugmentParams:
    """An augmentation with these settings; no other probability is above 0."""
    return AugmentParams.model_validate(default_content()["augment"] | OFF | {"policy": policy} | changes)
