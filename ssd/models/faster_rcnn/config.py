"""The configuration of a Faster R-CNN: saved with its weights, sufficient to rebuild it."""

from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from ssd.boxes import xyxy_to_cxcywh
from ssd.models.auxiliary import NORMED
from ssd.models.feature_maps import Shape, map_shapes
from ssd.models.priors import PriorLevel
from ssd.models.vgg import InputScale
from ssd.params import ModelParams

STRIDES = (4, 8, 16, 32)
"""Of the backbone's feature maps, pixels per cell. A fifth map is the last one, max-pooled to stride 64."""

SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
RATIOS = (0.5, 1.0, 2.0)
"""The anchors of torchvision's Faster R-CNN on a feature pyramid: a side in pixels per level, each with three
aspect ratios (here height / width)."""


@dataclass(frozen=True)
class FasterRCNNConfig:
    """The configuration of a network; the thresholds and counts are torchvision's.

    input_size: pixels. num_classes: with background. width: channels of the feature pyramid. anchor_sizes:
    pixels, one per level; anchor_ratios: height / width, on each of them. rpn_*: proposals before and after
    NMS in training and else, the IoU of their NMS, the IoU from which an anchor is positive and that below
    which it is background, anchors sampled per image, the largest fraction of positives among them. roi_*:
    the same of the second stage, whose representation has roi_width numbers.
    """

    backbone: str
    input_size: int
    num_classes: int
    width: int = 256
    anchor_sizes: tuple[float, ...] = SIZES
    anchor_ratios: tuple[float, ...] = RATIOS
    rpn_train_proposals: int = 2000
    rpn_proposals: int = 1000
    rpn_nms_iou: float = 0.7
    rpn_positive_iou: float = 0.7
    rpn_negative_iou: float = 0.3
    rpn_samples: int = 256
    rpn_positives: float = 0.5
    roi_iou: float = 0.5
    roi_samples: int = 512
    roi_positives: float = 0.25
    roi_width: int = 1024
    family: Literal["faster_rcnn"] = "faster_rcnn"

    input_scale: ClassVar[InputScale] = "imagenet"

    @staticmethod
    def from_state(state: dict[str, Any]) -> "FasterRCNNConfig":
        """From `dataclasses.asdict` of a config."""
        lists = {key: tuple(state[key]) for key in ("anchor_sizes", "anchor_ratios")}
        return FasterRCNNConfig(**{**state, **lists})

    def backbone_shapes(self, side: int | None = None) -> tuple[Shape, ...]:
        """(channels, height, width) of the backbone's feature maps, finest first.

        Raises:
            UserError: there is no such backbone, or it has no feature maps of STRIDES.
        """
        own, _ = map_shapes(self.backbone, STRIDES, NORMED, self.input_size, side)
        return own

    def anchors_per_level(self, side: int) -> list[int]:
        """The number of anchors of each level, for inputs of `side` pixels."""
        return [height * width * len(self.anchor_ratios) for height, width in self.map_sizes(side)]

    def num_proposals(self, side: int, most: int) -> int:
        """How many proposals of at most `most` there are for inputs of `side` pixels, NMS aside."""
        return min(most, sum(min(most, number) for number in self.anchors_per_level(side)))

    def map_sizes(self, side: int | None = None) -> list[tuple[int, int]]:
        """(height, width) of every level, finest first, for inputs of `side` or `input_size` pixels."""
        sizes = [(height, width) for _, height, width in self.backbone_shapes(side)]
        return [*sizes, (ceil(sizes[-1][0] / 2), ceil(sizes[-1][1] / 2))]

    @property
    def cell_priors(self) -> tuple[PriorLevel, ...]:
        """The anchors of a cell of each level, (width, height) in pixels: the same at every input size."""
        generator = self._generator()
        shapes = [anchors[:, 2:] - anchors[:, :2] for anchors in generator.cell_anchors]
        return tuple(PriorLevel(tuple(map(tuple, level.tolist()))) for level in shapes)

    @property
    def levels(self) -> tuple[PriorLevel, ...]:
        """The same, normalised by `input_size`."""
        side = self.input_size
        return tuple(
            PriorLevel(tuple((width / side, height / side) for width, height in level.shapes))
            for level in self.cell_priors
        )

    def anchors_at(self, side: int) -> Tensor:
        """All anchors of an input of `side` pixels, level by level, row by row, cell by cell.

        As torchvision's: centred on the corners of the cells, with whole pixels as sides.

        Returns:
            float32 [A, 4], cxcywh, normalised to [0, 1].
        """
        sizes = [list(size) for size in self.map_sizes(side)]
        strides = [[torch.tensor(stride, device="cpu")] * 2 for stride in level_strides(side)]
        anchors = torch.cat(self._generator().grid_anchors(sizes, strides))
        return xyxy_to_cxcywh(anchors / side)

    def _generator(self) -> AnchorGenerator:
        ratios = (self.anchor_ratios,) * len(self.anchor_sizes)
        return AnchorGenerator(tuple((size,) for size in self.anchor_sizes), ratios)


def level_strides(side: int) -> tuple[int, ...]:
    """Pixels per cell of each level.

    Of the last one as torchvision has it: the input, padded to a multiple of 32, over the number of its
    cells, which are rounded up. It is 64 where 64 divides the input, and a little less elsewhere.
    """
    padded = ceil(side / 32) * 32
    return (*STRIDES, padded // ceil(padded / 64))


def faster_rcnn_config(params: ModelParams, num_classes: int) -> FasterRCNNConfig:
    """The configuration that the `model` section describes.

    Raises:
        UserError: there is no such backbone, or it has no feature maps of STRIDES.
    """
    config = FasterRCNNConfig(params.backbone, params.input_size, num_classes, params.width)
    config.backbone_shapes()
    return config
