"""The SSD network: backbone, auxiliary convolutions, heads. Raw outputs, the same in train and eval."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssd.models.backbones import build_backbone
from ssd.models.priors import make_priors, paper_levels

AUXILIARY_CHANNELS = 256


@dataclass(frozen=True)
class SSDConfig:
    """All that is needed to rebuild a network; saved with its weights.

    num_classes counts the background; input_size is in pixels; scales are shares of the image.
    """

    backbone: str
    input_size: int
    num_classes: int
    scale_first: float
    scale_second: float
    scale_last: float


class SSD(nn.Module):
    """Single Shot MultiBox Detector (Liu et al., ECCV 2016) on a residual backbone.

    Maps: the backbone's, then auxiliary convolutions that halve the last one down to 1x1. Each map has
    two 3x3 convolutions, for offsets and for class scores.

    Attributes:
        priors: float32 [P, 4], cxcywh, shares of the image. Computed, never saved.
    """

    priors: Tensor

    def __init__(self, config: SSDConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.backbone = build_backbone(config.backbone)
        shapes = list(_backbone_shapes(config.backbone, config.input_size))
        self.auxiliary = nn.ModuleList()
        while shapes[-1][1] > 1:
            channels, side, _ = shapes[-1]
            stage, new_side = _auxiliary_stage(channels, side)
            self.auxiliary.append(stage)
            shapes.append((AUXILIARY_CHANNELS * 2, new_side, new_side))

        self.levels = paper_levels(len(shapes), config.scale_first, config.scale_second, config.scale_last)
        self.loc_heads, self.conf_heads = nn.ModuleList(), nn.ModuleList()
        for (channels, _, _), level in zip(shapes, self.levels, strict=True):
            num_priors = len(level.shapes())
            self.loc_heads.append(nn.Conv2d(channels, num_priors * 4, 3, padding=1))
            self.conf_heads.append(nn.Conv2d(channels, num_priors * config.num_classes, 3, padding=1))
        self.register_buffer("priors", self.priors_at(config.input_size), persistent=False)
        self._initialise()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs.

        Args:
            images: [B, 3, S, S], normalised; S is the configured input size, or in training another one
                (see `priors_at`).

        Returns:
            loc [B, P, 4], offsets from the priors; logits [B, P, C], background first.
        """
        maps: list[Tensor] = self.backbone(images)
        for stage in self.auxiliary:
            # A trace has the configured size, at which every stage fits.
            if not torch._C._get_tracing_state() and not _fits(stage, maps[-1].shape[-1]):
                break
            maps.append(stage(maps[-1]))
        outputs = [self._outputs(level, x) for level, x in enumerate(maps)]
        loc, logits = zip(*outputs, strict=True)
        return torch.cat(loc, dim=1), torch.cat(logits, dim=1)

    def _outputs(self, level: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both heads of a level as one convolution: its map is read, and its gradient written, once.

        Returns:
            loc [B, H * W * A, 4] and logits [B, H * W * A, C], in the order of the priors.
        """
        loc_head = cast(nn.Conv2d, self.loc_heads[level])
        conf_head = cast(nn.Conv2d, self.conf_heads[level])
        assert loc_head.bias is not None and conf_head.bias is not None, "made with one"
        weight = torch.cat([loc_head.weight, conf_head.weight])
        x = F.conv2d(x, weight, torch.cat([loc_head.bias, conf_head.bias]), padding=1)
        loc, logits = x.permute(0, 2, 3, 1).tensor_split([loc_head.out_channels], dim=3)
        return loc.reshape(x.shape[0], -1, 4), logits.reshape(x.shape[0], -1, self.num_classes)

    def priors_at(self, side: int) -> Tensor:
        """The priors of an input of `side` pixels: float32 [P, 4], cxcywh, shares of the image.

        Levels keep their scales at every size. At a smaller size the last levels may have no map.
        """
        sides = [height for _, height, _ in _backbone_shapes(self.config.backbone, side)]
        for stage in self.auxiliary:
            if not _fits(stage, sides[-1]):
                break
            sides.append(_side_after(stage, sides[-1]))
        return make_priors([(side, side) for side in sides], self.levels[: len(sides)])

    def _initialise(self) -> None:
        for module in self.auxiliary.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for head in [*self.loc_heads, *self.conf_heads]:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        # Three of four selected priors are negatives: start from that rate rather than from 1 / C.
        for head in self.conf_heads:
            assert isinstance(head, nn.Conv2d) and head.bias is not None, "made above"
            head.bias.data.view(-1, self.num_classes)[:, 0] = math.log(3.0 * (self.num_classes - 1))


@lru_cache
def _backbone_shapes(name: str, side: int) -> tuple[tuple[int, ...], ...]:
    """(channels, height, width) of each map of a backbone, found by a run without any arithmetic."""
    with torch.device("meta"), torch.no_grad():
        maps = build_backbone(name)(torch.empty(1, 3, side, side))
    return tuple(tuple(x.shape[1:]) for x in maps)


def _auxiliary_stage(channels: int, side: int) -> tuple[nn.Sequential, int]:
    """A 1x1 bottleneck and a 3x3 convolution to the next smaller map; also its side in cells.

    3x3 goes to 1x1 without padding, as in the paper.
    """
    stride, padding = (1, 0) if side == 3 else (2, 1)
    stage = nn.Sequential(
        nn.Conv2d(channels, AUXILIARY_CHANNELS, 1, bias=False),
        nn.BatchNorm2d(AUXILIARY_CHANNELS),
        nn.ReLU(inplace=True),
        nn.Conv2d(AUXILIARY_CHANNELS, AUXILIARY_CHANNELS * 2, 3, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(AUXILIARY_CHANNELS * 2),
        nn.ReLU(inplace=True),
    )
    return stage, _side_after(stage, side)


def _fits(stage: nn.Module, side: int) -> bool:
    """Whether an auxiliary stage can follow a map of `side` cells.

    None follows a 1x1 map: nothing is left to see, and on some CPUs the bf16 weight gradient of a strided
    3x3 convolution there is wrong.
    """
    return side > 1 and _side_after(stage, side) > 0


def _side_after(stage: nn.Module, side: int) -> int:
    convolution = cast(nn.Conv2d, cast(nn.Sequential, stage)[3])
    return (side + 2 * int(convolution.padding[0]) - 3) // convolution.stride[0] + 1
