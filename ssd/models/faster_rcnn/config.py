"""The configuration of a Faster R-CNN: saved with its weights, sufficient to rebuild it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, starmap
from math import ceil
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from ssd.boxes import xyxy_to_cxcywh
from ssd.errors import UserError
from ssd.models.auxiliary import NORMED
from ssd.models.feature_maps import Shape, map_shapes
from ssd.models.priors import PriorLevel
from ssd.models.vgg import InputScale
from ssd.params import ModelParams

STRIDES = (4, 8, 16, 32)
"""Of the backbone's feature maps, pixels per cell. A fifth map is the last one, max-pooled to stride 64."""

SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
RATIOS = (0.5, 1.0, 2.0)
"""The table of anchors of the paper on feature pyramids, as torchvision has it: a side in pixels per level,
each with three aspect ratios (here height / width)."""


@dataclass(frozen=True)
class FasterRCNNConfig:
    """The configuration of a network; the thresholds and counts are torchvision's.

    input_size: pixels. num_classes: with background. width: channels of the feature pyramid. anchor_sizes:
    pixels, one per level; anchor_ratios: height / width, on each of them. anchor_levels: what replaces that
    table (k-means), normalised; () for the table. rpn_*: proposals before and after NMS in training and else,
    the IoU of their NMS, the IoU from which an anchor is positive and that below which it is background,
    anchors sampled per image, the largest fraction of positives among them. roi_*: the same of the second
    stage, whose representation has roi_width numbers.
    """

    backbone: str
    input_size: int
    num_classes: int
    width: int = 256
    anchor_sizes: tuple[float, ...] = SIZES
    anchor_ratios: tuple[float, ...] = RATIOS
    anchor_levels: tuple[PriorLevel, ...] = ()
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
        levels = tuple(map(PriorLevel.from_state, state["anchor_levels"]))
        return FasterRCNNConfig(**{**state, **lists, "anchor_levels": levels})

    def backbone_shapes(self, side: int | None = None) -> tuple[Shape, ...]:
        """(channels, height, width) of the backbone's feature maps, finest first.

        Raises:
            UserError: there is no such backbone, or it has no feature maps of STRIDES.
        """
        try:
            own, _ = map_shapes(self.backbone, STRIDES, NORMED, self.input_size, side)
        except UserError as error:
            if error.key != "model.strides":  # which this family does not use
                raise
            raise UserError(
                f"{self.backbone} has no feature maps of strides {', '.join(map(str, STRIDES))}, which "
                "model.family: faster_rcnn needs; choose another, such as resnet50",
                key="model.backbone",
            ) from None
        return own

    def anchors_per_level(self, side: int) -> list[int]:
        """The number of anchors of each level, for inputs of `side` pixels."""
        sizes = zip(self.map_sizes(side), self.rpn_outputs, strict=True)
        return [height * width * (own.stop - own.start) for (height, width), own in sizes]

    @property
    def rpn_outputs(self) -> tuple[slice, ...]:
        """Which outputs of the head of the region proposal network belong to the anchors of each level.

        All levels share those of the table, whose shapes are the same in cells; others have their own.
        """
        if not self.anchor_levels:
            return (slice(0, len(self.anchor_ratios)),) * len(self.anchor_sizes)
        ends = list(accumulate(len(level.shapes) for level in self.anchor_levels))
        return tuple(starmap(slice, pairwise([0, *ends])))

    def num_proposals(self, side: int, most: int) -> int:
        """How many proposals of at most `most` there are for inputs of `side` pixels, NMS aside."""
        return min(most, sum(min(most, number) for number in self.anchors_per_level(side)))

    def map_sizes(self, side: int | None = None) -> list[tuple[int, int]]:
        """(height, width) of every level, finest first, for inputs of `side` or `input_size` pixels."""
        sizes = [(height, width) for _, height, width in self.backbone_shapes(side)]
        return [*sizes, (ceil(sizes[-1][0] / 2), ceil(sizes[-1][1] / 2))]

    @property
    def cell_priors(self) -> tuple[PriorLevel, ...]:
        """The anchors of a cell of each level, the same at every input size.

        (width, height), in pixels where they are those of the table, else normalised.
        """
        if self.anchor_levels:
            return self.anchor_levels
        generator = self._generator(self.input_size)
        shapes = [anchors[:, 2:] - anchors[:, :2] for anchors in generator.cell_anchors]
        return tuple(PriorLevel(tuple(map(tuple, level.tolist()))) for level in shapes)

    @property
    def levels(self) -> tuple[PriorLevel, ...]:
        """The same, normalised to [0, 1] at `input_size`."""
        if self.anchor_levels:
            return self.anchor_levels
        side = self.input_size
        return tuple(
            PriorLevel(tuple((width / side, height / side) for width, height in level.shapes))
            for level in self.cell_priors
        )

    def anchors_at(self, side: int) -> Tensor:
        """All anchors of an input of `side` pixels, level by level, row by row, cell by cell.

        As torchvision's: centred on the corners of the cells, those of the table with whole pixels as sides.
        These stay as large in pixels at other input sizes; others stay as large within the image.

        Returns:
            float32 [A, 4], cxcywh, normalised to [0, 1].
        """
        sizes = [list(size) for size in self.map_sizes(side)]
        strides = [[torch.tensor(stride, device="cpu")] * 2 for stride in level_strides(side)]
        anchors = torch.cat(self._generator(side).grid_anchors(sizes, strides))
        return xyxy_to_cxcywh(anchors / side)

    def _generator(self, side: int) -> AnchorGenerator:
        """torchvision's, with the anchors for inputs of `side` pixels."""
        ratios = (self.anchor_ratios,) * len(self.anchor_sizes)
        generator = AnchorGenerator(tuple((size,) for size in self.anchor_sizes), ratios)
        if self.anchor_levels:
            halves = [torch.tensor(level.shapes, device="cpu") * (side / 2) for level in self.anchor_levels]
            generator.cell_anchors = [torch.cat([-half, half], dim=1) for half in halves]
        return generator


def level_strides(side: int) -> tuple[int, ...]:
    """Pixels per cell of each level.

    Of the last one as torchvision has it: the input, padded to a multiple of 32, over the number of its
    cells, which are rounded up. It is 64 where 64 divides the input, and a little less elsewhere.
    """
    padded = ceil(side / 32) * 32
    return (*STRIDES, padded // ceil(padded / 64))


def faster_rcnn_config(
    params: ModelParams, num_classes: int, kmeans: Sequence[PriorLevel] = ()
) -> FasterRCNNConfig:
    """The configuration that the `model` section describes.

    Args:
        params: the section.
        num_classes: with background.
        kmeans: the anchors of each level, normalised, to use where `priors` is kmeans.

    Raises:
        UserError: there is no such backbone, or it has no feature maps of STRIDES.
    """
    levels = tuple(kmeans) if params.priors == "kmeans" else ()
    config = FasterRCNNConfig(
        params.backbone, params.input_size, num_classes, params.width, anchor_levels=levels
    )
    config.backbone_shapes()
    return config
