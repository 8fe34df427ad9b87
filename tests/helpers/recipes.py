"""The recipes of the repository, as params and as networks."""

from functools import cache

import torch
from default_params import REPOSITORY, default_content, read_yaml
from torch import Tensor

from ssd.models.build import build_model
from ssd.models.config import model_config
from ssd.models.priors import make_priors
from ssd.models.ssd import SSD
from ssd.params import Params

FOLDER = REPOSITORY / "recipes"


@cache
def recipe_params(name: str) -> Params:
    """The recipe on top of the default."""
    content = default_content()
    for section, values in read_yaml(FOLDER / f"{name}.yaml").items():
        content[section].update(values)
    return Params.model_validate(content)


def recipe_priors(name: str) -> Tensor:
    """Those of its network, without building it: [P, 4], cxcywh, normalised to [0, 1]."""
    config = model_config(recipe_params(name).model, 21)
    return make_priors(config.map_sizes(), config.levels)


def build_recipe(name: str, num_object_classes: int) -> SSD:
    """Its network, randomly initialised."""
    names = [str(label) for label in range(num_object_classes)]
    return build_model(recipe_params(name).model, names, torch.zeros(0, 4), 0, "none")
