"""A network for a training: by the `model` section, with priors for its boxes and its starting weights."""

import torch
from torch import Tensor

from ssd.models.config import map_sides, model_config
from ssd.models.kmeans_priors import kmeans_levels
from ssd.models.ssd import SSD
from ssd.models.weights import load_weights
from ssd.params import ModelParams


def build_model(params: ModelParams, num_object_classes: int, boxes: Tensor, seed: int, weights: str) -> SSD:
    """A network to train.

    Args:
        params: the section.
        num_object_classes: background is one class more.
        boxes: float32 [n, 4] xyxy, shares of the image, of the objects to train on; for k-means alone.
        seed: of k-means and of fresh weights.
        weights: `params.weights`, a file's path made absolute.

    Raises:
        UserError: parts of the section do not fit each other, or the weights do not fit.
    """
    torch.manual_seed(seed)
    levels = []
    if params.priors == "kmeans":
        sides = map_sides(params.backbone, tuple(params.strides), params.heads, params.input_size)
        levels = kmeans_levels(boxes[:, 2:] - boxes[:, :2], sides, params.prior_clusters, seed)
    model = SSD(model_config(params, num_object_classes + 1, levels))
    load_weights(model, weights)
    return model
