"""torchvision's `ssd300_vgg16` as an `SSD`: the same architecture with other parameter names."""

import re

from torch import Tensor

from ssd.models.config import SSDConfig
from ssd.models.priors import PriorLevel, table_levels

SCALES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
RATIOS = ((1.0, 2.0, 1 / 2), *((1.0, 2.0, 1 / 2, 3.0, 1 / 3),) * 3, *((1.0, 2.0, 1 / 2),) * 2)
STEPS = (8, 16, 32, 64, 100, 300)
SIDE = 300
NUM_COCO_CLASSES = 91
"""Of the published weights: COCO's category ids with their gaps, and the background."""

_FC = {"1": "fc6", "3": "fc7"}


def ssd300_vgg16_config(num_classes: int = NUM_COCO_CLASSES) -> SSDConfig:
    """The config of torchvision's `ssd300_vgg16`, with torchvision's priors in torchvision's order."""
    levels = tuple(
        PriorLevel(level.shapes, step / SIDE)
        for level, step in zip(table_levels(SCALES, RATIOS), STEPS, strict=True)
    )
    return SSDConfig("vgg16", (), SIDE, num_classes, "none", "conv3x3", 256, levels, "caffe")


def is_ssd300_vgg16(state: dict[str, Tensor]) -> bool:
    """Whether a state dict is one of torchvision's `ssd300_vgg16`, by some of its names."""
    heads = (f"head.{kind}_head.module_list.0.bias" for kind in ("classification", "regression"))
    return all(key in state for key in ("backbone.scale_weight", *heads))


def convert_ssd300_vgg16(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of torchvision's `ssd300_vgg16` to `SSD(ssd300_vgg16_config(num_classes))`.

    The network then gives the same logits and offsets.

    Raises:
        KeyError: a name that is not of that network.
    """
    return {_our_name(key): value for key, value in state.items()}


def _our_name(key: str) -> str:
    if key == "backbone.scale_weight":
        return "backbone.conv4_scale"
    if match := re.fullmatch(r"backbone\.features\.(\d+\.\w+)", key):
        return f"backbone.features.{match[1]}"
    # extra.0 is pool4 and conv5 (indices 0..6), then pool5, fc6 and fc7; the others are auxiliary stages.
    if match := re.fullmatch(r"backbone\.extra\.0\.7\.(\d)\.(\w+)", key):
        return f"backbone.{_FC[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"backbone\.extra\.0\.(\d)\.(\w+)", key):
        return f"backbone.features.{23 + int(match[1])}.{match[2]}"
    if match := re.fullmatch(r"backbone\.extra\.(\d)\.(\d\.\w+)", key):
        return f"auxiliary.{int(match[1]) - 1}.{match[2]}"
    if match := re.fullmatch(r"head\.(classification|regression)_head\.module_list\.(\d\.\w+)", key):
        return f"heads.{'conf' if match[1] == 'classification' else 'loc'}.{match[2]}"
    raise KeyError(key)


def num_classes_of(state: dict[str, Tensor]) -> int:
    """Number of classes of a torchvision state dict, with background."""
    conf, loc = (
        state[f"head.{kind}_head.module_list.0.bias"].numel() for kind in ("classification", "regression")
    )
    return conf * 4 // loc
