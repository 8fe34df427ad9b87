"""The SSD network: backbone, auxiliary convolutions, heads. Raw outputs, the same in train and eval."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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
        shapes = _map_shapes(self.backbone, config.input_size)
        self.auxiliary = nn.ModuleList()
        while shapes[-1][1] > 1:
            channels, side, _ = shapes[-1]
            stage, new_side = _auxiliary_stage(channels, side)
            self.auxiliary.append(stage)
            shapes.append((AUXILIARY_CHANNELS * 2, new_side, new_side))

        levels = paper_levels(len(shapes), config.scale_first, config.scale_second, config.scale_last)
        self.loc_heads, self.conf_heads = nn.ModuleList(), nn.ModuleList()
        for (channels, _, _), level in zip(shapes, levels, strict=True):
            num_priors = len(level.shapes())
            self.loc_heads.append(nn.Conv2d(channels, num_priors * 4, 3, padding=1))
            self.conf_heads.append(nn.Conv2d(channels, num_priors * config.num_classes, 3, padding=1))
        priors = make_priors([(height, width) for _, height, width in shapes], levels)
        self.register_buffer("priors", priors, persistent=False)
        self._initialise()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs.

        Args:
            images: [B, 3, S, S], normalised, S the configured input size.

        Returns:
            loc [B, P, 4], offsets from the priors; logits [B, P, C], background first.
        """
        maps: list[Tensor] = self.backbone(images)
        for stage in self.auxiliary:
            maps.append(stage(maps[-1]))
        loc = [_by_prior(head(x), 4) for head, x in zip(self.loc_heads, maps, strict=True)]
        logits = [_by_prior(head(x), self.num_classes) for head, x in zip(self.conf_heads, maps, strict=True)]
        return torch.cat(loc, dim=1), torch.cat(logits, dim=1)

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


def _map_shapes(backbone: nn.Module, input_size: int) -> list[tuple[int, int, int]]:
    """(channels, height, width) of each map of the backbone, found by running it."""
    training = backbone.training
    with torch.no_grad():
        maps = backbone.eval()(torch.zeros(1, 3, input_size, input_size))
    backbone.train(training)
    return [tuple(x.shape[1:]) for x in maps]


def _auxiliary_stage(channels: int, side: int) -> tuple[nn.Sequential, int]:
    """A 1x1 bottleneck and a 3x3 convolution to the next smaller map; also its side in cells.

    3x3 goes to 1x1 without padding, as in the paper. There is none on a 1x1 map: nothing is left to
    see, and on some CPUs the bf16 weight gradient of a strided 3x3 convolution there is wrong.
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
    return stage, (side + 2 * padding - 3) // stride + 1


def _by_prior(x: Tensor, num_values: int) -> Tensor:
    """[B, A * num_values, H, W] to [B, H * W * A, num_values], in the order of the priors."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, num_values)
