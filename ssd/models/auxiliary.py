"""Auxiliary convolutions after the backbone, which halve its last feature map down to 1x1."""

from typing import Literal

from torch import nn

Kind = Literal["normed", "plain", "separable"]
"""With batch norm; without, as in the paper; as in SSDLite (Sandler et al., "MobileNetV2", section 6.2)."""


def auxiliary_stage(kind: Kind, number: int, channels: int, side: int) -> nn.Sequential:
    """Stage `number`, from 0, for a feature map of `channels` and `side` cells (two at least) per side."""
    return _STAGES[kind](channels, _width(kind, number), side)


def fits(stage: nn.Module, side: int) -> bool:
    """Whether a stage can follow a feature map of `side` x `side` cells, other than it was built for.

    None can follow a 1x1 map: nothing is left to halve, and on some CPUs the bf16 weight gradient of a
    strided 3x3 convolution is wrong there. Without padding, a 3x3 convolution needs a map of 3x3.
    """
    padded = any(isinstance(module, nn.Conv2d) and module.padding == (1, 1) for module in stage.modules())
    return side >= (2 if padded else 3)


def _width(kind: Kind, number: int) -> int:
    """Output channels of stage `number`: 512 (normed), the paper's (plain), or SSDLite's (separable)."""
    widths = {"normed": (512,), "plain": (512, 256), "separable": (512, 256, 256, 128)}[kind]
    return widths[min(number, len(widths) - 1)]


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


_STAGES = {"normed": _normed, "plain": _plain, "separable": _separable}
