"""The heads: from feature maps to offsets and class logits of every prior."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssd.models.config import SSDConfig


class Heads(nn.Module):
    """Two convolutions per level: on the feature map (3x3), on a projection (1x1), or after a depthwise one.

    conv3x3 is the paper's (SSD, section 2.1). conv1x1 first projects every map to `width` channels. ssdlite
    puts a depthwise 3x3 convolution before each of two 1x1 ones (Sandler et al., "MobileNetV2", 2018, section
    6.2).

    Attributes:
        adapters: the layers before the two convolutions of each level.
    """

    def __init__(self, config: SSDConfig, channels: list[int]) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        self.separable = config.heads == "ssdlite"
        self.adapters, self.loc, self.conf = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for number, level in zip(channels, config.levels, strict=True):
            if config.heads == "conv1x1":
                self.adapters.append(_projection(number, config.width))
                number = config.width
            else:
                self.adapters.append(_depthwise(number) if self.separable else nn.Identity())
            kernel, num_priors = 3 if config.heads == "conv3x3" else 1, len(level.shapes)
            self.loc.append(nn.Conv2d(number, num_priors * 4, kernel, padding=kernel // 2))
            self.conf.append(nn.Conv2d(number, num_priors * config.num_classes, kernel, padding=kernel // 2))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Feature maps, finest first (the last may be missing), to loc [B, P, 4] and logits [B, P, C]."""
        outputs = [self.level(level, x) for level, x in enumerate(maps)]
        loc, logits = zip(*outputs, strict=True)
        return torch.cat(loc, dim=1), torch.cat(logits, dim=1)

    def level(self, level: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """A feature map to loc [B, H * W * A, 4] and logits [B, H * W * A, C], in the order of priors."""
        x = self.adapters[level](x)
        loc_head, conf_head = cast(nn.Conv2d, self.loc[level]), cast(nn.Conv2d, self.conf[level])
        if self.separable:
            # The outputs of the two filters per channel are adjacent.
            loc, logits = loc_head(x[:, 0::2]), conf_head(x[:, 1::2])
        else:
            loc, logits = _both(loc_head, conf_head, x)
        batch_size = x.shape[0]
        return (
            loc.permute(0, 2, 3, 1).reshape(batch_size, -1, 4),
            logits.permute(0, 2, 3, 1).reshape(batch_size, -1, self.num_classes),
        )

    def initialise(self) -> None:
        """Initialise the weights randomly: there are no published ones."""
        for adapter in self.adapters.modules():
            if isinstance(adapter, nn.Conv2d):
                nn.init.kaiming_normal_(adapter.weight, nonlinearity="relu")
        for head in [*self.loc, *self.conf]:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        # Of the priors in the loss, three in four are negatives: start from that probability, not from 1 / C.
        for head in self.conf:
            assert isinstance(head, nn.Conv2d) and head.bias is not None, "created with a bias"
            head.bias.data.view(-1, self.num_classes)[:, 0] = math.log(3.0 * (self.num_classes - 1))


def _both(loc_head: nn.Conv2d, conf_head: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both convolutions as one: the feature map is read, and its gradient written, once."""
    assert loc_head.bias is not None and conf_head.bias is not None, "created with a bias"
    weight = torch.cat([loc_head.weight, conf_head.weight])
    x = F.conv2d(x, weight, torch.cat([loc_head.bias, conf_head.bias]), padding=loc_head.padding)
    loc, logits = x.tensor_split([loc_head.out_channels], dim=1)
    return loc, logits


def by_class(head: nn.Module, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weight [A, C, in, k, k] and bias [A, C] of a confidence head; views, not copies."""
    convolution = cast(nn.Conv2d, head)
    assert convolution.bias is not None, "created with a bias"
    weight, bias = convolution.weight.data, convolution.bias.data
    return weight.view(-1, num_classes, *weight.shape[1:]), bias.view(-1, num_classes)


def _projection(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _depthwise(channels: int) -> nn.Sequential:
    """Depthwise 3x3 convolution with two filters per channel, one per head."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU6(inplace=True),
    )
