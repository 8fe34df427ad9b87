"""The families of detectors: the only place, beside the initial weights, that knows them by name.

Both give the same contract, and nothing else of the package tells them apart:

    model(images, matches)               raw outputs, a tuple of tensors; `matches` in training alone
    model.criterion(settings, side)      a criterion; its `match(targets, key)` gives `matches`, with
                                         `rows(slice)` and `divisor`; called with (*outputs,
                                         matches, divisor): `Losses`
    model.postprocessor(settings, nms)   called with (*outputs): boxes, scores, labels, num_detections
    model.with_kernels(kernels)          the same network with an export format's NMS and RoI align
    model.priors, model.class_heads(), model.backbone.stages(), model.config
"""

from collections.abc import Sequence
from typing import Any

from ssd.loss import MultiBoxLoss
from ssd.models.config import SSDConfig, model_config
from ssd.models.faster_rcnn.config import FasterRCNNConfig, faster_rcnn_config
from ssd.models.faster_rcnn.loss import FasterRCNNLoss
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.faster_rcnn.postprocess import RoIPostProcessor
from ssd.models.priors import PriorLevel
from ssd.models.ssd import SSD
from ssd.models.vgg import InputScale
from ssd.params import ModelParams
from ssd.postprocess import PostProcessor

Model = SSD | FasterRCNN
Config = SSDConfig | FasterRCNNConfig
Criterion = MultiBoxLoss | FasterRCNNLoss
Processor = PostProcessor | RoIPostProcessor


def new_model(config: Config) -> Model:
    """A network with randomly initialised weights."""
    return SSD(config) if isinstance(config, SSDConfig) else FasterRCNN(config)


def config_from_state(state: dict[str, Any]) -> Config:
    """From `dataclasses.asdict` of a config; one without `family` is of SSD."""
    family = state.get("family", SSDConfig.family)
    return SSDConfig.from_state(state) if family == SSDConfig.family else FasterRCNNConfig.from_state(state)


def config_from_params(
    params: ModelParams,
    num_classes: int,
    kmeans: Sequence[PriorLevel] = (),
    input_scale: InputScale = "imagenet",
) -> Config:
    """The configuration that the `model` section describes; see `ssd.models.config.model_config`."""
    if params.family == SSDConfig.family:
        return model_config(params, num_classes, kmeans, input_scale)
    return faster_rcnn_config(params, num_classes)
