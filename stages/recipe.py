"""`python -m stages.recipe NAME`: write a published system's settings into params.yaml; no stage of dvc.yaml.

A file of recipes/ lists what differs from recipes/default.yaml. What it writes is the default, then these
differences, whatever params.yaml had before; its comments stay, and so do the keys of a machine or a project
that the default does not list. Without NAME it lists the recipes.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from ssd.errors import UserError, storage_errors_explained
from ssd.files import replacing
from ssd.params import load_params
from ssd.params_file import read_params_file
from stages.command import parser_of

PARAMS = Path("params.yaml")
RECIPES = Path("recipes")
DEFAULT = "default"
COMMENT_COLUMN = 26  # of params.yaml


def main(arguments: Sequence[str] = ()) -> None:
    """List the recipes, or write one."""
    parser = parser_of(main)
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="a recipe")
    name = parser.parse_args(arguments).name
    try:
        with storage_errors_explained():
            if name:
                write_recipe(name)
            else:
                list_recipes()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def list_recipes() -> None:
    """Print each recipe's name and the first sentence of its header."""
    for path in sorted(RECIPES.glob("*.yaml")):
        print(f"{path.stem:32s} {title_of(path)}")
    print("\nmake recipe NAME=... writes one of them into params.yaml")


def title_of(path: Path) -> str:
    """The first sentence of a recipe's header, which may run over several lines."""
    lines = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines).split(". ")[0].rstrip(".")


def write_recipe(name: str) -> None:
    """Write params.yaml, and print which of its values changed.

    Raises:
        UserError: there is no such recipe, or params.yaml is missing or not valid; it is left as it was.
    """
    before = load_params(PARAMS).model_dump()
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096  # no line is broken
    content = yaml.load(PARAMS)
    for section, values in recipe(name).items():
        for key, value in values.items():
            if before[section][key] != value:
                content[section][key] = in_one_line(value)
        align_comments(content[section])
    with replacing(PARAMS) as temporary:
        yaml.dump(content, temporary)
        after = load_params(temporary).model_dump()
    changed = [
        f"{section}.{key}: {before[section][key]} -> {value}"
        for section, values in after.items()
        for key, value in values.items()
        if value != before[section][key]
    ]
    print("\n".join([*changed, f"{PARAMS}: {len(changed)} values changed for {name}"]))


def recipe(name: str) -> dict[str, dict[str, Any]]:
    """All values that a recipe sets, by section and key: those of the default, and what differs.

    Raises:
        UserError: there is no such recipe, or a file of recipes/ is not one.
    """
    values = read_recipe(DEFAULT)
    for section, keys in read_recipe(name).items():
        values[section] = {**values.get(section, {}), **keys}
    return values


def read_recipe(name: str) -> dict[str, dict[str, Any]]:
    """The sections of one file."""
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise UserError(
            f"no recipe {name!r}; there are: {known or 'none, run from the root of the repository'}"
        )
    content = read_params_file(path)
    if not isinstance(content, Mapping) or not all(isinstance(keys, Mapping) for keys in content.values()):
        raise UserError(f"{path}: not a recipe, which has sections of keys as params.yaml has")
    return {section: dict(keys) for section, keys in content.items()}


def align_comments(section: CommentedMap) -> None:
    """Put the comments of a section back to their column, from which a long value has moved them."""
    for _, _, comment, _ in section.ca.items.values():
        if comment is not None:
            comment.column = COMMENT_COLUMN


def in_one_line(value: Any) -> Any:
    """A list as params.yaml has them, in brackets; a mapping in braces, one of several in a line each."""
    if isinstance(value, Mapping):
        keys = CommentedMap({key: in_one_line(item) for key, item in value.items()})
        if not any(isinstance(item, Mapping | list) for item in value.values()):
            keys.fa.set_flow_style()
        return keys
    if not isinstance(value, list):
        return value
    items = CommentedSeq([in_one_line(item) for item in value])
    items.fa.set_flow_style()
    return items


if __name__ == "__main__":
    main(sys.argv[1:])
