"""Region proposals: the outputs of the region proposal network (RPN) to boxes, with static shapes.

Ren et al., "Faster R-CNN" (NeurIPS 2015), section 3.1, on a feature pyramid as in torchvision.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms as nms_of_one

from ssd.boxes import decode
from ssd.matching import eager_on_cpu
from ssd.models.faster_rcnn.roi_align import sides_of
from ssd.postprocess import NMS, nms_mask

NO_VARIANCES = (1.0, 1.0)
"""The offsets of the RPN are not scaled; those of the second stage are, as SSD's."""

MIN_SIDE = 1e-3
"""Pixels: smaller proposals are dropped."""


def propose(
    objectness: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    num_per_level: Sequence[int],
    side: int,
    num_proposals: int,
    nms_iou: float,
    nms: NMS = nms_mask,
) -> tuple[Tensor, Tensor]:
    """The best anchors of each level, decoded, after NMS within the level; then the best of all levels.

    Args:
        objectness: float32 [B, A], logits; offsets: float32 [B, A, 4]; both without gradient.
        anchors: float32 [A, 4], cxcywh, normalised.
        num_per_level: anchors of each level, A together.
        side: of the input, pixels.
        num_proposals: at most, of each level before NMS, and of an image after it.
        nms_iou: IoU above which a proposal is suppressed.
        nms: `nms_mask`, or its replacement in an export format with an NMS operator.

    Returns:
        float32 [B, N, 4], xyxy, normalised and clipped to [0, 1], best first; bool [B, N], which of them are
        proposals; N is `num_proposals`, or the number of anchors that went into NMS where that is smaller.
    """
    if eager_on_cpu(objectness) and nms is nms_mask:
        nms = nms_by_row
    taken = [min(num_proposals, number) for number in num_per_level]
    rows, first = [], 0
    for number, most, logits in zip(
        num_per_level, taken, torch.split(objectness, list(num_per_level), 1), strict=True
    ):
        rows.append(logits.topk(most, dim=1).indices + first)
        first += number
    index = torch.cat(rows, dim=1)
    loc = offsets.gather(1, index[..., None].expand(-1, -1, 4))
    boxes = decode(loc, anchors[index], NO_VARIANCES).clamp(0, 1)
    large = torch.minimum(*sides_of(boxes)) * side >= MIN_SIDE
    scores = torch.where(large, objectness.gather(1, index).sigmoid(), -1)

    boxes_of_levels, scores_of_levels = [], []
    for own_boxes, own_scores in zip(
        torch.split(boxes, taken, 1), torch.split(scores, taken, 1), strict=True
    ):
        # Dropped ones last: NMS takes scores in descending order.
        own_scores, order = own_scores.sort(dim=1, descending=True, stable=True)
        own_boxes = own_boxes.gather(1, order[..., None].expand(-1, -1, 4))
        boxes_of_levels.append(own_boxes)
        scores_of_levels.append(torch.where(nms(own_boxes, own_scores, nms_iou, -0.5), own_scores, -1))
    boxes, scores = torch.cat(boxes_of_levels, dim=1), torch.cat(scores_of_levels, dim=1)
    scores, index = scores.topk(min(num_proposals, sum(taken)), dim=1)
    return boxes.gather(1, index[..., None].expand(-1, -1, 4)), scores >= 0


def nms_by_row(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """`nms_mask` for a CPU, with torchvision's NMS row by row, which is many times as fast there."""
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for row, num in enumerate((scores > score_threshold).sum(1).tolist()):
        keep[row, nms_of_one(boxes[row, :num], scores[row, :num], iou_threshold)] = True
    return keep
