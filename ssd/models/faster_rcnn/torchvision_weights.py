"""torchvision's `fasterrcnn_resnet50_fpn` as a `FasterRCNN`: the same architecture with other names."""

import logging
import re

import torch
from torch import Tensor

from ssd.errors import UserError
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.published import KEY

log = logging.getLogger(__name__)

EPS = 1e-5
"""Of the batch norms here; torchvision sets it to 0 for its published weights."""

_NAMES = {
    r"backbone\.body\.(.+)": r"backbone.\1",
    r"backbone\.fpn\.inner_blocks\.(\d)\.(?:0\.)?(\w+)": r"neck.lateral.\1.\2",
    r"backbone\.fpn\.layer_blocks\.(\d)\.(?:0\.)?(\w+)": r"neck.output.\1.\2",
    r"rpn\.head\.conv\.(?:0\.0\.)?(\w+)": r"rpn.conv.0.0.\1",
    r"rpn\.head\.(.+)": r"rpn.\1",
    r"roi_heads\.box_head\.(.+)": r"box_head.\1",
    r"roi_heads\.box_predictor\.(.+)": r"predictor.\1",
}
"""Older versions of torchvision, which wrote the published file, have no `0.` in the convolutions."""


RPN_OUTPUTS = ("rpn.cls_logits.", "rpn.bbox_pred.")
"""What the anchors decide the shape of."""


def is_faster_rcnn(state: dict[str, Tensor]) -> bool:
    """Whether a state dict is of a Faster R-CNN of torchvision's, by some of its names."""
    return all(
        key in state for key in ("rpn.head.cls_logits.weight", "roi_heads.box_predictor.cls_score.bias")
    )


def num_classes_of(state: dict[str, Tensor]) -> int:
    """Number of classes of such a state dict, with background."""
    return len(state["roi_heads.box_predictor.cls_score.bias"])


def convert_faster_rcnn(state: dict[str, Tensor], eps: float = EPS) -> dict[str, Tensor]:
    """Convert a state dict of `fasterrcnn_resnet50_fpn` to `FasterRCNN(FasterRCNNConfig("resnet50", ...))`.

    Args:
        eps: of torchvision's batch norms. Another one than EPS is made up for by their weights, so that the
            network gives the same outputs in eval mode.

    Raises:
        KeyError: a name that is not of that network.
    """
    converted = {_our_name(key): value for key, value in state.items()}
    if eps != EPS:
        for key in [key for key in converted if key.endswith(".running_var")]:
            variance = converted[key]
            weight = key.removesuffix("running_var") + "weight"
            converted[weight] = converted[weight] * ((variance + EPS) / (variance + eps)).sqrt()
    return converted


def load_faster_rcnn(
    model: torch.nn.Module, state: dict[str, Tensor], weights: str, *, published: bool
) -> None:
    """Load torchvision's whole detector, but for its heads for other classes or anchors than those here.

    Args:
        model: changed in place.
        weights: names the state dict in messages.
        published: it is torchvision's own, whose batch norms have an eps of 0.

    Raises:
        UserError: the model is another one.
    """
    if not isinstance(model, FasterRCNN):
        raise UserError(
            f"{weights} is torchvision's Faster R-CNN; it fits family: faster_rcnn, backbone: resnet50",
            key=KEY,
        )
    own = model.state_dict()
    try:
        converted = convert_faster_rcnn(state, 0.0 if published else EPS)
        if num_classes_of(state) != model.num_classes:
            converted |= {key: value for key, value in own.items() if key.startswith("predictor.")}
        if model.config.anchor_levels:
            log.warning(
                "model.weights: %s has other anchors than those of model.priors: what predicts proposals by "
                "them is randomly initialised",
                weights,
            )
            converted |= {key: value for key, value in own.items() if key.startswith(RPN_OUTPUTS)}
        # Frozen batch norms, as in the published file, have no count of batches.
        counts = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
        model.load_state_dict(counts | converted)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{weights} does not fit torchvision's fasterrcnn_resnet50_fpn, which is family: faster_rcnn, "
            f"backbone: resnet50, width: {FasterRCNNConfig.width} ({reason})",
            key=KEY,
        ) from None


def _our_name(key: str) -> str:
    for theirs, ours in _NAMES.items():
        if match := re.fullmatch(theirs, key):
            return match.expand(ours)
    raise KeyError(key)
