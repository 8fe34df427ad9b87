"""Initial weights: published ones, from a file, or none; never a silent fallback to training from scratch."""

import logging
import math
import urllib.error
from collections.abc import Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, WeightsEnum, get_model_weights
from torchvision.models.detection import SSD300_VGG16_Weights

from ssd.errors import UserError
from ssd.models.backbones import CONV4
from ssd.models.extractors import ExtractedFeatures, timm_network
from ssd.models.priors import PriorLevel
from ssd.models.ssd import SSD
from ssd.models.torchvision_ssd import (
    convert_ssd300_vgg16,
    is_ssd300_vgg16,
    num_classes_of,
    ssd300_vgg16_config,
)
from ssd.models.vgg import VGG16Features, vgg16_state
from ssd.params import PUBLISHED_WEIGHTS

log = logging.getLogger(__name__)

COCO_WEIGHTS: WeightsEnum = SSD300_VGG16_Weights.COCO_V1


def load_weights(model: SSD, weights: str) -> None:
    """Load `weights` into a network, in place.

    Args:
        model: with randomly initialised weights.
        weights: "none" keeps these; "imagenet" downloads torchvision's weights of the backbone, "coco" those
            of its `ssd300_vgg16` (both cached in torch's hub folder); anything else is a file with a state
            dict of torchvision's backbone or `ssd300_vgg16` (.safetensors, or .pth loaded without pickle).

    Raises:
        UserError: the weights cannot be downloaded or read, or do not fit. There is no silent fallback.
    """
    name = model.config.backbone
    if weights == "none":
        return
    if weights in PUBLISHED_WEIGHTS:
        state = published_state(published_weights(name, weights), weights)
    elif name.startswith("timm/"):
        _load_timm(model, weights)
        return
    else:
        state = read_state(Path(weights))
    if is_ssd300_vgg16(state):
        _load_detector(model, state, weights)
    else:
        _load_backbone(model.backbone, name, state, weights)


def published_weights(name: str, weights: str) -> WeightsEnum:
    """torchvision's weights for a backbone and one of PUBLISHED_WEIGHTS.

    Raises:
        UserError: torchvision publishes none; for networks of timm's, it never does.
    """
    if name.startswith("timm/"):
        raise UserError(
            f"found {weights!r}; allowed for {name}: none, or a file, such as "
            "the model.safetensors of its page on Hugging Face",
            key="model.weights",
        )
    return COCO_WEIGHTS if weights == "coco" else imagenet_weights(name)


def cache_path(weights: WeightsEnum) -> Path:
    """The file in torch's hub folder that torchvision's weights are kept in once they are downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(urlsplit(weights.url).path).name


def imagenet_weights(name: str) -> WeightsEnum:
    """torchvision's weights of a backbone: those of SSD's authors for vgg16, else the first version.

    V1 everywhere: it is what torchvision's own detectors start from.

    Raises:
        UserError: torchvision publishes none.
    """
    if name == "vgg16":
        return VGG16_Weights.IMAGENET1K_FEATURES
    published = [entry for entry in get_model_weights(name.removesuffix(CONV4)) if "IMAGENET1K" in entry.name]
    if not published:
        raise UserError(
            f"torchvision has no imagenet weights for {name}; allowed: none, a file", key="model.weights"
        )
    return published[0]


def published_state(weights: WeightsEnum, asked: str) -> dict[str, Tensor]:
    """Download torchvision's weights from its own URL; the digest in the file name is checked."""
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"{asked} could not be downloaded ({error}); put {weights.url} into "
            f"{cache_path(weights).parent}, or name a state-dict file, or set none to train from scratch",
            key="model.weights",
        ) from None
    return state


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file."""
    key = "model.weights"
    if not path.is_file():
        allowed = "imagenet, coco, none, or a .safetensors or .pth state dict"
        raise UserError(f"{path}: no such file; allowed: {allowed}", key=key)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch and safetensors raise a dozen types)
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path}: not a state dict that loads without pickle: {reason}", key=key) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a state dict (a mapping of names to tensors)", key=key)
    return state


def _load_backbone(backbone: nn.Module, name: str, state: dict[str, Tensor], weights: str) -> None:
    if isinstance(backbone, VGG16Features):
        state = vgg16_state(state, backbone)
    own = backbone.state_dict()
    if isinstance(backbone, ExtractedFeatures):
        state = {f"body.{key}": value for key, value in state.items()}
        # torchvision's networks have layers that the feature maps do not need.
        state = {key: value for key, value in state.items() if key in own}
    # Drop the classifier and layers after the last feature map.
    state = {key: value for key, value in state.items() if key in own or not _is_unused(key, own)}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{weights} does not fit {name}: {reason}", key="model.weights") from None


def _is_unused(key: str, own: dict[str, Tensor]) -> bool:
    """Whether a key belongs to a classifier or a layer that the backbone does not have."""
    part = key.split(".")[0]
    return part in ("fc", "layer3", "layer4") and not any(name.split(".")[0] == part for name in own)


def _load_detector(model: SSD, state: dict[str, Tensor], weights: str) -> None:
    """Load torchvision's whole detector; where the number of classes differs, all but the class heads."""
    expected = ssd300_vgg16_config(model.num_classes)
    config = model.config
    same = all(
        getattr(config, name) == getattr(expected, name)
        for name in ("backbone", "input_size", "neck", "heads")
    )
    counts = [[len(level.shapes) for level in levels] for levels in (config.levels, expected.levels)]
    if not same or counts[0] != counts[1]:
        raise UserError(
            f"{weights} is torchvision's ssd300_vgg16; it fits backbone: vgg16, "
            f"input_size: 300, neck: none, heads: conv3x3 and {counts[1]} priors per cell",
            key="model.weights",
        )
    if not _alike(config.levels, expected.levels):
        log.warning(
            "model.weights: %s was trained with other priors than those of `model`; those of recipes/"
            "coco-ssd300-vgg16.yaml are the same",
            weights,
        )
    converted = convert_ssd300_vgg16(state)
    found = num_classes_of(state)
    if found != model.num_classes:
        log.warning(
            "model.weights: %s has %d classes, the data set has %d (with background): the class heads "
            "are randomly initialised",
            weights,
            found,
            model.num_classes,
        )
        own = model.state_dict()
        converted |= {key: own[key] for key in converted if key.startswith("heads.conf.")}
    model.load_state_dict(converted)


def _alike(levels: Sequence[PriorLevel], others: Sequence[PriorLevel]) -> bool:
    """Whether two lists of levels are equal up to rounding."""
    numbers = [
        [number for level in side for number in (level.step or 0.0, *chain.from_iterable(level.shapes))]
        for side in (levels, others)
    ]
    return all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(*numbers, strict=True))


def _load_timm(model: SSD, weights: str) -> None:
    """Load a file of timm's; timm maps its parameter names to those of the feature extractor."""
    name = model.config.backbone
    read_state(Path(weights))
    places = tuple(_timm_places(model))
    try:
        loaded = timm_network(
            name, places, pretrained=True, pretrained_cfg_overlay={"file": weights, "custom_load": False}
        )
    except UserError:
        raise UserError(f"{weights} does not fit {name}", key="model.weights") from None
    body = model.backbone.get_submodule("body")
    body.load_state_dict(loaded.state_dict())


def _timm_places(model: SSD) -> list[int]:
    """Indices of the feature maps that a timm network returns."""
    info = model.backbone.get_submodule("body").feature_info
    return list(info.out_indices)  # type: ignore[union-attr,arg-type]
