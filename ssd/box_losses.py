"""Losses of predicted boxes by their overlap with the true ones: GIoU and CIoU."""

import math

import torch
from torch import Tensor

TINY = 1e-12
"""Added where an area or a length may be zero: a millionth of an image side, squared."""


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019, algorithm 1).

    The share of the enclosing box that neither box covers is taken off the IoU, so that boxes apart have a
    gradient too. Finite, as is the gradient, for empty boxes.

    Args:
        boxes, targets: float32 [..., 4] xyxy, shares of the image; no corners swapped.

    Returns:
        float32 [...], 0 (the same box) to 2.
    """
    iou, union = _iou(boxes, targets)
    enclosing = _enclosing_size(boxes, targets).prod(-1)
    return 1 - iou + (enclosing - union) / (enclosing + TINY)


def ciou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - CIoU (Zheng et al., "Distance-IoU Loss", AAAI 2020, equations 8 to 11).

    On top of the IoU: the squared distance of the centres over the squared diagonal of the enclosing box,
    and the difference of the aspect ratios, weighted with the `alpha` of equation 11, which as in the paper
    has no gradient. Finite, as is the gradient, for empty boxes.

    Args:
        boxes, targets: float32 [..., 4] xyxy, shares of the image; no corners swapped.

    Returns:
        float32 [...], from 0 (the same box).
    """
    iou, _ = _iou(boxes, targets)
    diagonal = _enclosing_size(boxes, targets).square().sum(-1)
    between = (boxes[..., :2] + boxes[..., 2:] - targets[..., :2] - targets[..., 2:]) / 2
    distance = between.square().sum(-1) / (diagonal + TINY)
    aspect = 4 / math.pi**2 * (_aspect(boxes) - _aspect(targets)).square()
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + TINY)
    return 1 - iou + distance + alpha * aspect


def _iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and area of the union of each pair of boxes."""
    overlap = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    intersection = overlap.clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - intersection
    return intersection / (union + TINY), union


def _enclosing_size(a: Tensor, b: Tensor) -> Tensor:
    """(width, height) of the smallest box around each pair."""
    return torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])


def _aspect(boxes: Tensor) -> Tensor:
    """Angle of the diagonal, arctan(width / height)."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return torch.atan2(width, height + TINY)
