"""Initial weights: published ones, from a file, or none; never a silent fallback to training from scratch."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ssd.errors import UserError, first_line, is_out_of_memory
from ssd.files import sha256
from ssd.models.config import SSDConfig
from ssd.models.extractors import ExtractedFeatures, timm_network
from ssd.models.family import Model
from ssd.models.faster_rcnn import torchvision_weights as faster_rcnn
from ssd.models.fine_tune import load_own_model
from ssd.models.priors import alike
from ssd.models.published import KEY, fetch_weights, published_file
from ssd.models.saved import is_model_file
from ssd.models.torchvision_ssd import (
    convert_ssd300_vgg16,
    is_ssd300_vgg16,
    num_classes_of,
    ssd300_vgg16_config,
)
from ssd.models.vgg import VGG16Features, vgg16_state
from ssd.params import PUBLISHED_WEIGHTS

log = logging.getLogger(__name__)


def load_weights(model: Model, weights: str, class_names: Sequence[str] = ()) -> None:
    """Load `weights` into a network, in place.

    Args:
        model: with randomly initialised weights.
        weights: "none" keeps these; "imagenet" takes torchvision's weights of the backbone, "coco" those of
            its detector (both from torch's hub folder, downloaded if they are missing; their digest is
            checked every time); anything else is a file: a model.pt of this project (see
            `ssd.models.fine_tune`), or a state dict of torchvision's backbone or detector, as
            .safetensors, or as .pth loaded without pickle.
        class_names: of the data set, without background; a model.pt keeps the heads of those it knows.

    Raises:
        UserError: the weights cannot be downloaded or read, or do not fit. There is no silent fallback.
    """
    name = model.config.backbone
    if weights == "none":
        return
    if is_model_file(weights):
        load_own_model(model, Path(weights), class_names)
        return
    if weights in PUBLISHED_WEIGHTS:
        path = fetch_weights(name, weights)
    elif name.startswith("timm/"):
        _load_timm(model, weights)
        return
    else:
        path = Path(weights)
    state = read_state(path)
    if is_ssd300_vgg16(state):
        _load_detector(model, state, weights)
    elif faster_rcnn.is_faster_rcnn(state):
        published = sha256(path).startswith(published_file("resnet50", "coco").sha256)
        faster_rcnn.load_faster_rcnn(model, state, weights, published=published)
    else:
        _load_backbone(model.backbone, name, state, weights)
    found = num_detector_classes(state)
    if found is not None and found != model.num_classes:
        log.warning(
            "model.weights: %s has %d classes, the data set has %d (with background): the class heads "
            "are randomly initialised",
            weights,
            found,
            model.num_classes,
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file.

    Raises:
        UserError: the file is missing, is not a state dict, or does not load without pickle.
    """
    if not path.is_file():
        allowed = "imagenet, coco, none, a model.pt, or a .safetensors or .pth state dict"
        raise UserError(f"{path}: no such file; allowed: {allowed}", key=KEY)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch and safetensors raise a dozen types)
        reason = first_line(error)
        if is_out_of_memory(error):
            raise UserError(f"{path}: not enough memory to read it: {reason}", key=KEY) from None
        raise UserError(f"{path}: not a state dict that loads without pickle: {reason}", key=KEY) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a state dict (a mapping of names to tensors)", key=KEY)
    if not state:
        raise UserError(f"{path}: an empty state dict", key=KEY)
    return state


def _load_backbone(backbone: nn.Module, name: str, state: dict[str, Tensor], weights: str) -> None:
    try:
        if isinstance(backbone, VGG16Features):
            state = vgg16_state(state, backbone)
        _load_what_fits(backbone, state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{weights} does not fit {name}: {reason}", key=KEY) from None


def _load_what_fits(backbone: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict without its classifier and the layers after the last feature map.

    Raises:
        RuntimeError: it lacks a tensor, or one has another shape.
    """
    own = backbone.state_dict()
    if isinstance(backbone, ExtractedFeatures):
        state = {f"body.{key}": value for key, value in state.items()}
        # torchvision's networks have layers that the feature maps do not need.
        state = {key: value for key, value in state.items() if key in own}
    state = {key: value for key, value in state.items() if key in own or not _is_unused(key, own)}
    backbone.load_state_dict(state)


def _is_unused(key: str, own: dict[str, Tensor]) -> bool:
    """Whether a key belongs to a classifier or a layer that the backbone does not have."""
    part = key.split(".")[0]
    return part in ("fc", "layer3", "layer4") and not any(name.split(".")[0] == part for name in own)


def _load_detector(model: Model, state: dict[str, Tensor], weights: str) -> None:
    """Load torchvision's whole detector; where the number of classes differs, all but the class heads."""
    expected = ssd300_vgg16_config(model.num_classes)
    config = model.config
    same = isinstance(config, SSDConfig) and all(
        getattr(config, name) == getattr(expected, name)
        for name in ("backbone", "input_size", "neck", "heads")
    )
    counts = [[len(level.shapes) for level in levels] for levels in (config.levels, expected.levels)]
    if not same or counts[0] != counts[1]:
        raise UserError(
            f"{weights} is torchvision's ssd300_vgg16; it fits backbone: vgg16, "
            f"input_size: 300, neck: none, heads: conv3x3 and {counts[1]} priors per cell, of family ssd",
            key=KEY,
        )
    if not alike(config.levels, expected.levels):
        log.warning(
            "model.weights: %s was trained with other priors than those of `model`; those of recipes/"
            "coco-ssd300-vgg16.yaml are the same",
            weights,
        )
    own = {} if num_classes_of(state) == model.num_classes else model.state_dict()
    fresh = {key: value for key, value in own.items() if key.startswith("heads.conf.")}
    try:
        model.load_state_dict(convert_ssd300_vgg16(state) | fresh)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{weights} does not fit torchvision's ssd300_vgg16: {reason}", key=KEY) from None


def _load_timm(model: Model, weights: str) -> None:
    """Load a file of timm's; timm maps its parameter names to those of the feature extractor.

    It passes over names that it does not find, on either side. So the file is loaded twice, first with NaN
    for every number: what is not NaN then, would keep random weights.
    """
    name = model.config.backbone
    state = read_state(Path(weights))
    nans = {k: torch.full_like(v, math.nan) if v.is_floating_point() else v for k, v in state.items()}
    probed = _timm_state(model, nans, weights)
    missing = [k for k, v in probed.items() if v.is_floating_point() and not bool(v.isnan().all())]
    if missing:
        raise UserError(
            f"{weights} does not fit {name}: it lacks {len(missing)} of {len(probed)} tensors, such as "
            f"{missing[0]}",
            key=KEY,
        )
    model.backbone.get_submodule("body").load_state_dict(_timm_state(model, state, weights))


def _timm_state(model: Model, state: dict[str, Tensor], weights: str) -> dict[str, Tensor]:
    """What timm makes of a state dict for the feature extractor of `model`.

    timm is given the state dict and not its file, which some of its versions load with pickle. Without
    `source`, a name of timm's that stands for a folder or a page of Hugging Face would load their weights.
    """
    name, places = model.config.backbone, tuple(_timm_places(model))
    overlay = {"state_dict": state, "source": "", "custom_load": False}
    try:
        network = timm_network(name, places, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # noqa: BLE001 (timm's converters of state dicts raise exceptions of any type)
        raise UserError(f"{weights} does not fit {name} ({first_line(error)})", key=KEY) from None
    return network.state_dict()


def _timm_places(model: Model) -> list[int]:
    """Indices of the feature maps that a timm network returns."""
    info = model.backbone.get_submodule("body").feature_info
    return list(info.out_indices)  # type: ignore[union-attr,arg-type]


def num_detector_classes(state: dict[str, Tensor]) -> int | None:
    """Number of classes, with background, of a detector of torchvision's; None of any other state dict."""
    if is_ssd300_vgg16(state):
        return num_classes_of(state)
    return faster_rcnn.num_classes_of(state) if faster_rcnn.is_faster_rcnn(state) else None
