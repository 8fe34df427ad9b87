"""Builds the network to train from the `model` section, with its priors and its initial weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd.models.family import Model, config_from_params, kmeans_priors, new_model
from ssd.models.input_scale import resolve_input_scale
from ssd.models.weights import load_weights
from ssd.params import ModelParams


def build_model(
    params: ModelParams, class_names: Sequence[str], boxes: Tensor, seed: int, weights: str
) -> Model:
    """A network to train.

    Args:
        params: the `model` section.
        class_names: without background.
        boxes: float32 [M, 4], xyxy, normalised to [0, 1], of the training objects; for k-means alone.
        seed: of k-means and of the random initialisation.
        weights: `params.weights`, a file's path made absolute.

    Raises:
        UserError: settings of the section contradict each other, the weights do not fit, or nothing tells
            which input they expect.
    """
    input_scale = resolve_input_scale(params.input_scale, params.backbone, weights)
    torch.manual_seed(seed)
    levels = kmeans_priors(params, boxes[:, 2:] - boxes[:, :2], seed) if params.priors == "kmeans" else ()
    model = new_model(config_from_params(params, len(class_names) + 1, levels, input_scale))
    load_weights(model, weights, class_names)
    return model
