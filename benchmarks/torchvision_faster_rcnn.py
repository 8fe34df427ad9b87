"""The peer: torchvision's `fasterrcnn_resnet50_fpn` with the weights, anchors and counts of ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.faster_rcnn.torchvision_weights import convert_faster_rcnn
from ssd.postprocess import PostProcessSettings

SIDE = 320
NUM_CLASSES = 21

SETTINGS = PostProcessSettings(score_threshold=0.05, nms_iou=0.5, max_detections=100)
"""torchvision's thresholds."""

State = Mapping[str, Tensor]


def torchvision_model(side: int, state: State | None = None) -> Any:
    """torchvision's network for images of `side` pixels, without frozen layers or batch norms.

    Args:
        side: pixels.
        state: its weights; random ones without.
    """
    peer = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES, fixed_size=(side, side)
    )
    if state is not None:
        peer.load_state_dict(state)
    return peer


def our_model(side: int, state: State) -> FasterRCNN:
    """Ours with weights of torchvision's; thresholds and counts are the same by default."""
    model = FasterRCNN(FasterRCNNConfig("resnet50", side, NUM_CLASSES))
    model.load_state_dict(convert_faster_rcnn(dict(state)))
    return model
