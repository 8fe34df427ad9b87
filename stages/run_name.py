"""The name of the MLflow run of a training: what differs from the commit, and from the default recipe."""

import os
import subprocess
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ssd.params import NOT_OF_A_RUN, Params
from ssd.tracking.run import flat_params
from ssd.tracking.run_name import Values, run_name
from stages.recipe import DEFAULT, RECIPES, read_recipe


def name_of(params: Params) -> str:
    """See `ssd.tracking.run_name`. Where there is no git, or no recipe, nothing differs from it."""
    values = flat_params(params.model_dump(exclude=NOT_OF_A_RUN))
    default = flat_params(read_recipe(DEFAULT)) if (RECIPES / f"{DEFAULT}.yaml").is_file() else {}
    return run_name(values, [committed_params(), default], os.environ.get("DVC_EXP_NAME", ""))


def committed_params(folder: Path = Path()) -> Values:
    """params.yaml of the last commit, flat; {} where there is none that can be read."""
    command = ["git", "show", "HEAD:./params.yaml"]
    try:
        shown = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=30)
        sections = YAML(typ="safe", pure=True).load(shown.stdout.decode())
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError, YAMLError):
        return {}
    if not isinstance(sections, dict):
        return {}
    return flat_params({name: keys for name, keys in sections.items() if isinstance(keys, dict)})
