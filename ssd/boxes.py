"""Box formats, intersection over union (IoU), and SSD's offset encoding.

xyxy is (x1, y1, x2, y2), half-open; cxcywh is (centre x, centre y, width, height).
"""

import torch
from torch import Tensor

VARIANCES = (0.1, 0.2)
"""Scale of the centre and of the size offsets, as in the authors' code of SSD (Liu et al., ECCV 2016)."""

MAX_SIZE_OFFSET = 4.135166556742356
"""log(1000 / 16): no decoded box is larger than 62.5 times its prior, so that exp cannot overflow."""


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size; [..., 4] to [..., 4], same units."""
    corner_min, corner_max = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(corner_min + corner_max) / 2, corner_max - corner_min], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size to corners; [..., 4] to [..., 4], same units."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes; xyxy [..., 4] each, same units, broadcast to [...].

    Two empty boxes have an IoU of 0 and a finite gradient.
    """
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    intersection = width * height
    # The smallest normal float32, so that two empty boxes are not 0 / 0. A literal, because TorchScript,
    # which NMS is exported to, does not support torch.finfo.
    area_a = ((ax2 - ax1) * (ay2 - ay1)).clamp(min=1.1754943508222875e-38)
    area_b = (bx2 - bx1) * (by2 - by1)
    return intersection / (area_a + area_b - intersection)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """`iou` of every pair; xyxy [..., N, 4] and [..., M, 4] to [..., N, M]."""
    # Each coordinate of b contiguous: four times as fast as a memory stride of four.
    b = b.transpose(-1, -2).contiguous().transpose(-1, -2)
    return iou(a.unsqueeze(-2), b.unsqueeze(-3))


def encode(boxes: Tensor, priors: Tensor, variances: tuple[float, float] = VARIANCES) -> Tensor:
    """Offsets of boxes from priors, the regression target (SSD, section 2.2, equation 2, with variances).

    Args:
        boxes: xyxy [..., 4], same units as the priors.
        priors: cxcywh [..., 4].
        variances: 0.1 and 0.2 in the next line.

    Returns:
        [..., 4]: (dcx / w, dcy / h) / 0.1 and (log w ratio, log h ratio) / 0.2.
    """
    target = xyxy_to_cxcywh(boxes)
    centre = (target[..., :2] - priors[..., :2]) / priors[..., 2:] / variances[0]
    smallest = torch.finfo(target.dtype).eps
    size = (target[..., 2:].clamp(min=smallest) / priors[..., 2:]).log() / variances[1]
    return torch.cat([centre, size], dim=-1)


def decode(loc: Tensor, priors: Tensor, variances: tuple[float, float] = VARIANCES) -> Tensor:
    """The inverse of `encode`: offsets [..., 4] and cxcywh priors [..., 4] to xyxy boxes [..., 4]."""
    centre = priors[..., :2] + loc[..., :2] * variances[0] * priors[..., 2:]
    size = priors[..., 2:] * (loc[..., 2:] * variances[1]).clamp(max=MAX_SIZE_OFFSET).exp()
    return cxcywh_to_xyxy(torch.cat([centre, size], dim=-1))
