"""The recipes of the repository, as params and as networks."""

from functools import cache

import torch
from default_params import REPOSITORY, default_content, read_yaml
from torch import Tensor

from ssd.models.build import build_model
from ssd.models.config import SSDConfig
from ssd.models.family import Model, config_from_params, kmeans_priors
from ssd.models.priors import make_priors
from ssd.params import ModelParams, Params

FOLDER = REPOSITORY / "recipes"

BOXES = torch.cat([torch.zeros(20, 2), torch.linspace(0.05, 0.9, 20)[:, None] * torch.tensor([1.0, 0.7])], 1)
"""Of k-means, where a recipe has it: xyxy, normalised, of sizes from 0.05 to 0.9."""


@cache
def recipe_params(name: str) -> Params:
    """The recipe on top of the default."""
    content = default_content()
    for section, values in read_yaml(FOLDER / f"{name}.yaml").items():
        content[section].update(values)
    return Params.model_validate(content)


def recipe_model(name: str, side: int | None = None) -> ModelParams:
    """Its section `model`, with another input size if one is given."""
    params = recipe_params(name).model
    return params.model_copy(update={"input_size": side or params.input_size})


def recipe_priors(name: str, side: int | None = None) -> Tensor:
    """Those of its network, without building it: [P, 4], cxcywh, normalised to [0, 1]."""
    params = recipe_model(name, side)
    levels = kmeans_priors(params, BOXES[:, 2:] - BOXES[:, :2], 0) if params.priors == "kmeans" else ()
    config = config_from_params(params, 21, levels)
    if isinstance(config, SSDConfig):
        return make_priors(config.map_sizes(), config.levels)
    return config.anchors_at(config.input_size)


def build_recipe(name: str, num_object_classes: int, side: int | None = None) -> Model:
    """Its network, randomly initialised."""
    names = [str(label) for label in range(num_object_classes)]
    return build_model(recipe_model(name, side), names, BOXES, 0, "none")
