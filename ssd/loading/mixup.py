"""Mixup of a batch for detection: two images in one, with the objects of both.

Zhang et al., "Bag of Freebies for Training Object Detection Neural Networks" (2019), section 3.1. Images
are already of one size here, so that the blend keeps the geometry as the paper asks.
"""

import torch
from torch import Generator, Tensor

from ssd.matching import Targets


def mixup(
    images: Tensor, targets: Targets, probability: float, generator: Generator
) -> tuple[Tensor, Targets]:
    """Blend each image of a batch with the one before it (the first with the last), all or none.

    The weights are drawn an image from Beta(1.5, 1.5), the paper's choice: mostly near one half. Objects
    of both images count in full (the paper may also weight their losses, which gains it little).

    Args:
        images: float32 [B, 3, S, S], normalised or not: a blend is the same either way.
        targets: on the same device.
        probability: of blending this batch.
        generator: source of randomness, on the CPU; the device is not waited for.

    Returns:
        The batch, in the memory format it came in, and targets with twice the rows (or both as they came).
    """
    if torch.rand((), generator=generator) >= probability:
        return images, targets
    weights = _beta(len(images), generator).view(-1, 1, 1, 1)
    weights = (weights.pin_memory() if images.is_cuda else weights).to(images.device, non_blocking=True)
    mixed = torch.empty_like(images)
    torch.lerp(images[-1:], images[:1], weights[:1], out=mixed[:1])
    torch.lerp(images[:-1], images[1:], weights[1:], out=mixed[1:])
    rows = (targets.boxes, targets.labels, targets.ignored)
    return mixed, Targets(*(torch.cat([own, own.roll(1, 0)], dim=1) for own in rows))


def _beta(size: int, generator: Generator) -> Tensor:
    """Draws from Beta(3/2, 3/2), float32 [size]: where a random point of a disc lies across its diameter."""
    radius, turn = torch.rand(2, size, generator=generator).unbind()
    return (1 + radius.sqrt() * (2 * torch.pi * turn).cos()) / 2
