"""A little noise in the input of a detector: what it decides, rounding decides, too.

A second stage sees the best boxes of a first one. Where many of them have nearly the same score, or overlap
by nearly the threshold of NMS, rounding decides which of them are seen, and so what is detected: another
runtime, or another processor, may detect something else there.
"""

import torch
from torch import Tensor, nn

from ssd.detector import Detector, Outputs

NOISE = 1e-4
"""Of a network's input, whose standard deviation is about 1: a hundredth of a grey level, and more than
rounding."""

NUM_NOISY = 8


def noisy_outputs(detector: Detector, images: Tensor) -> list[Outputs]:
    """What a detector gives NUM_NOISY times, each with other noise, which is the same in every call.

    Args:
        detector: on the CPU; images: uint8 [N, 3, H, W].
    """
    generator = torch.Generator().manual_seed(0)

    def add_noise(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] + NOISE * torch.randn(inputs[0].shape, generator=generator),)

    with detector.model.register_forward_pre_hook(add_noise):
        return [detector(images) for _ in range(NUM_NOISY)]
