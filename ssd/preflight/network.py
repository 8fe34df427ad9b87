"""The network that training will build: its backbone is known, its initial weights are there and fit."""

import warnings
from pathlib import Path

from ssd.params import PUBLISHED_WEIGHTS, ModelParams
from ssd.preflight.finding import Finding, collected
from ssd.preflight.hosts import list_reasons, probe

BUILT_IN_BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16")
"""Backbones that are always there; torchvision, which knows the others, takes seconds to import."""


def check_network(model: ModelParams, weights: str) -> list[Finding]:
    """Look for the backbone and for its initial weights.

    Args:
        model: the `model` section.
        weights: `model.weights`, a file's path made absolute.
    """
    usual = model.family == "ssd" and model.priors == "paper" and not model.prior_steps and not model.strides
    if usual and weights == "none" and model.backbone in BUILT_IN_BACKBONES and model.input_scale != "caffe":
        return []
    findings: list[Finding] = []
    with collected(findings):
        _check_config(model)
        if weights != "none":
            findings += _check_weights(model, weights)
        _check_input_scale(model, weights)
    return findings


def _check_config(model: ModelParams) -> None:
    """Compute the feature maps and the priors of the network, without memory for its weights.

    The priors of k-means are not known yet; the paper's take their place.

    Raises:
        UserError: there is no such backbone, it has no maps of these strides or does not take images of this
            size, it needs timm, or the lists of priors do not fit its maps.
    """
    from ssd.models.family import config_from_params

    config_from_params(_without_kmeans(model), num_classes=2)


def _check_input_scale(model: ModelParams, weights: str) -> None:
    """Raise UserError if `model.input_scale` contradicts the weights, or nothing tells it."""
    from ssd.models.input_scale import resolve_input_scale

    resolve_input_scale(model.input_scale, model.backbone, weights)


def _without_kmeans(model: ModelParams) -> ModelParams:
    return model.model_copy(update={"priors": "paper"}) if model.priors == "kmeans" else model


def _check_weights(model: ModelParams, weights: str) -> list[Finding]:
    if weights in PUBLISHED_WEIGHTS:
        return _check_published(model.backbone, weights)
    _check_file(model, weights)
    return []


def _check_published(backbone: str, weights: str) -> list[Finding]:
    """Check torchvision's file in torch's hub folder, else ask the host for it.

    Raises:
        UserError: torchvision publishes none, or the file in its place is another.
    """
    from ssd.fetch import check_in_place
    from ssd.models.published import KEY, hub_folder, published_file

    file = published_file(backbone, weights)
    path = hub_folder() / file.name
    if path.is_file():
        check_in_place(path, file, key=KEY)
        return []
    (url,) = file.urls
    refused = {url: reason for url, reason in probe({url: None}).items() if reason}
    if not refused:
        return []
    text = (
        f"the {weights} weights of {backbone} are not on this machine and cannot be downloaded "
        f"({list_reasons(refused)}); put {url} into {path.parent}, or name a state-dict file, "
        "or set none to train from scratch"
    )
    return [Finding(KEY, text)]


def _check_file(model: ModelParams, weights: str) -> None:
    """Load a file of weights into a network without memory, which compares names and shapes.

    Raises:
        UserError: the file does not exist, cannot be read, or does not fit.
    """
    import torch

    from ssd.models.family import config_from_params, new_model
    from ssd.models.fine_tune import check_fits
    from ssd.models.input_scale import resolve_input_scale
    from ssd.models.saved import is_model_file
    from ssd.models.weights import load_weights, num_detector_classes, read_state

    if is_model_file(weights):
        scale = resolve_input_scale(model.input_scale, model.backbone, weights)
        check_fits(config_from_params(_without_kmeans(model), 2, input_scale=scale), Path(weights))
        return
    state = read_state(Path(weights))
    num_classes = num_detector_classes(state) or 2
    with torch.device("meta"):
        network = new_model(config_from_params(_without_kmeans(model), num_classes))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
        load_weights(network, weights)
