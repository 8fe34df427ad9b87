"""Auxiliary convolutions after the backbone, which halve its last feature map down to 1x1."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

StageKind = Literal["normed", "plain", "single", "separable"]
"""1x1 and 3x3 convolutions with batch norm; without, as in the paper; one 3x3 convolution with batch norm; as
in SSDLite (Sandler et al., "MobileNetV2", section 6.2)."""


@dataclass(frozen=True)
class Auxiliary:
    """The auxiliary convolutions of a network.

    kind: of every stage. widths: output channels of each stage; the last is that of all further ones. Where
    a stage has two or three convolutions, those before the last have half as many channels.
    """

    kind: StageKind
    widths: tuple[int, ...]


NORMED = Auxiliary("normed", (512,))
PLAIN = Auxiliary("plain", (512, 256))
"""The paper's (SSD, figure 2)."""

TAPERED = Auxiliary("normed", (512, 512, 256))
"""After conv4 of a ResNet, 38x38 to 1x1 in five stages: the channels of MLPerf's SSD-ResNet34 and NVIDIA's
SSD300 on ResNet50 (DeepLearningExamples). Batch norm is NVIDIA's; MLPerf's stages have none, but biases."""

SSDLITE = Auxiliary("separable", (512, 256, 256, 128))


def auxiliary_stage(auxiliary: Auxiliary, number: int, channels: int, side: int) -> nn.Sequential:
    """Stage `number`, from 0, for a feature map of `channels` and `side` cells (two at least) per side."""
    width = auxiliary.widths[min(number, len(auxiliary.widths) - 1)]
    return _STAGES[auxiliary.kind](channels, width, side)


def fits(stage: nn.Module, side: int) -> bool:
    """Whether a stage can follow a feature map of `side` x `side` cells, other than it was built for.

    None can follow a 1x1 map: nothing is left to halve, and on some CPUs the bf16 weight gradient of a
    strided 3x3 convolution is wrong there. Without padding, a 3x3 convolution needs a map of 3x3.
    """
    padded = any(isinstance(module, nn.Conv2d) and module.padding == (1, 1) for module in stage.modules())
    return side >= (2 if padded else 3)


def _normed(channels: int, width: int, side: int) -> nn.Sequential:
    stride, padding = _stride_and_padding(side)
    return nn.Sequential(
        nn.Conv2d(channels, width // 2, 1, bias=False),
        nn.BatchNorm2d(width // 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(width // 2, width, 3, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _plain(channels: int, width: int, side: int) -> nn.Sequential:
    stride, padding = _stride_and_padding(side)
    return nn.Sequential(
        nn.Conv2d(channels, width // 2, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width // 2, width, 3, stride=stride, padding=padding),
        nn.ReLU(inplace=True),
    )


def _single(channels: int, width: int, side: int) -> nn.Sequential:
    """Stride 2 everywhere; without padding 3x3 becomes 1x1, with padding it would become 2x2."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=0 if side == 3 else 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def _separable(channels: int, width: int, side: int) -> nn.Sequential:
    half = width // 2
    return nn.Sequential(
        nn.Conv2d(channels, half, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU6(inplace=True),
        nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU6(inplace=True),
        nn.Conv2d(half, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
    )


def _stride_and_padding(side: int) -> tuple[int, int]:
    """As in the paper, 5x5 goes to 3x3 and that to 1x1 without padding; other maps are halved by stride 2."""
    return (1, 0) if side in (3, 5) else (2, 1)


_STAGES = {"normed": _normed, "plain": _plain, "single": _single, "separable": _separable}
