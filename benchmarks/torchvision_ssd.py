"""The peer: torchvision's SSD on the same feature maps and priors as ours, and its own training step."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import ssd as torchvision_detection
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator

from ssd.boxes import cxcywh_to_xyxy
from ssd.models.config import paper_config
from ssd.models.ssd import SSD
from ssd.structures import Targets

SIDE = 300
SCALES = (0.1, 0.2, 1.05)
NUM_CLASSES = 21

Target = dict[str, Tensor]
"""The objects of an image as torchvision has them: "boxes" xyxy pixels, "labels"."""


class FeatureMaps(nn.Module):
    """The backbone and auxiliary convolutions of our network, in the form of a backbone of torchvision's SSD.

    Attributes:
        out_channels: of the six maps.
    """

    def __init__(self, model: SSD, memory_format: torch.memory_format) -> None:
        super().__init__()
        self.backbone, self.auxiliary = model.backbone, model.auxiliary
        self.out_channels = [head.in_channels for head in model.heads.loc]
        self.memory_format = memory_format

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(images.contiguous(memory_format=self.memory_format))
        for stage in self.auxiliary:
            maps.append(stage(maps[-1]))
        return OrderedDict((str(level), x) for level, x in enumerate(maps))


def our_model(backbone: str = "resnet50", num_classes: int = NUM_CLASSES) -> SSD:
    """SSD300; num_classes with background."""
    return SSD(paper_config(backbone, SIDE, num_classes, *SCALES))


def torchvision_model(model: SSD, memory_format: torch.memory_format = torch.contiguous_format) -> Any:
    """torchvision's SSD, its own heads, loss and post-processing, around the convolutions of `model`.

    Its priors are those of `model`, in the same order.
    """
    levels = model.config.levels
    priors = DefaultBoxGenerator(
        [[2, 3] if len(level.shapes) == 6 else [2] for level in levels],
        scales=[*(level.shapes[0][0] for level in levels), SCALES[-1]],
        clip=False,
    )
    maps = FeatureMaps(model, memory_format)
    peer = torchvision_detection.SSD(maps, priors, (SIDE, SIDE), model.num_classes)
    return peer.to(memory_format=memory_format)


def anchors(priors: Tensor) -> Tensor:
    """Priors, cxcywh, normalised, in torchvision's form: xyxy, pixels, float32 [P, 4]."""
    return cxcywh_to_xyxy(priors) * SIDE


def as_torchvision(targets: Targets, side: int = SIDE) -> list[Target]:
    """Padded targets, normalised, to one dict per image, in pixels of images of `side`."""
    used = targets.labels > 0
    pairs = zip(targets.boxes, targets.labels, used, strict=True)
    return [{"boxes": boxes[rows] * side, "labels": labels[rows]} for boxes, labels, rows in pairs]


def training_step(
    peer: Any, images: Tensor, targets: list[Target], autocast: torch.dtype | None
) -> Callable[[], float]:
    """A step of torchvision's detection references: forward, losses, backward, SGD.

    Args:
        peer: a detector of torchvision's.
        images: uint8 [B, 3, S, S].
        targets: of each image.
        autocast: dtype of the convolutions; None is float32 without autocast.
    """
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0005)
    peer.train()

    def step() -> float:
        inputs = [image.float() / 255 for image in images]
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            losses = peer(inputs, targets)
            total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return float(total.detach())

    return step
