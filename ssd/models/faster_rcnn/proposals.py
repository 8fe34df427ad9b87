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

DROPPED = torch.finfo(torch.float32).min
"""The score of what is no proposal."""

MAX_BOXES = 2**15
"""In one call of NMS on a GPU: two images of 800 pixels have 17 000. Its memory grows with the square, here
128 MiB, and past some ten thousand boxes its time, too (torchvision's pull request 8925)."""


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

    Scores are logits. torchvision ranks by their sigmoid, which from 8 on is so near to 1 that runtimes round
    it to different orders. Equal ones, as an RPN gives where its hidden units are 0, rank by anchor, as in
    ONNX; which of those that equal the last one taken are taken is left to topk.

    Args:
        objectness: float32 [B, A], logits; offsets: float32 [B, A, 4]; both without gradient.
        anchors: float32 [A, 4], cxcywh, normalised.
        num_per_level: anchors of each level, A together.
        side: of the input, pixels.
        num_proposals: at most, of each level before NMS, and of an image after it.
        nms_iou: IoU above which a proposal is suppressed.
        nms: `nms_mask`, in whose place torchvision's NMS is called where no graph is traced; or what replaces
            it in an export format with an NMS operator.

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
        rows.append(logits.topk(most, dim=1).indices.sort(dim=1).values + first)
        first += number
    index = torch.cat(rows, dim=1)
    loc = offsets.gather(1, index[..., None].expand(-1, -1, 4))
    boxes = decode(loc, anchors[index], NO_VARIANCES).clamp(0, 1)
    large = torch.minimum(*sides_of(boxes)) * side >= MIN_SIDE
    scores = torch.where(large, objectness.gather(1, index), DROPPED)

    if boxes.is_cuda and nms is nms_mask and not torch._C._get_tracing_state():
        scores = torch.where(nms_of_all_levels(boxes, scores, taken, nms_iou), scores, DROPPED)
    else:
        boxes, scores = _level_by_level(boxes, scores, taken, nms_iou, nms)
    scores, index = scores.sort(dim=1, descending=True, stable=True)
    scores, index = scores[:, :num_proposals], index[:, :num_proposals]
    return boxes.gather(1, index[..., None].expand(-1, -1, 4)), scores > DROPPED


def _level_by_level(
    boxes: Tensor, scores: Tensor, num_per_level: list[int], nms_iou: float, nms: NMS
) -> tuple[Tensor, Tensor]:
    """Boxes [B, N, 4] and scores [B, N], best first within each level; DROPPED where suppressed."""
    boxes_of_levels, scores_of_levels = [], []
    for own_boxes, own_scores in zip(
        torch.split(boxes, num_per_level, 1), torch.split(scores, num_per_level, 1), strict=True
    ):
        # Dropped ones last: NMS takes scores in descending order.
        own_scores, order = own_scores.sort(dim=1, descending=True, stable=True)
        own_boxes = own_boxes.gather(1, order[..., None].expand(-1, -1, 4))
        boxes_of_levels.append(own_boxes)
        keep = nms(own_boxes, own_scores, nms_iou, DROPPED)
        scores_of_levels.append(torch.where(keep, own_scores, DROPPED))
    return torch.cat(boxes_of_levels, dim=1), torch.cat(scores_of_levels, dim=1)


def nms_of_all_levels(boxes: Tensor, scores: Tensor, num_per_level: Sequence[int], nms_iou: float) -> Tensor:
    """NMS within each level of each image, for a GPU: one call, and so one sync, for several images.

    The boxes of each level and image are moved to a unit square of their own, levels side by side and images
    one below the other, so that boxes of two squares do not overlap.

    Args:
        boxes: float32 [B, N, 4], xyxy, normalised and clipped to [0, 1], level by level.
        scores: float32 [B, N]; those to drop have the lowest.
        num_per_level: boxes of each level, N together.
        nms_iou: IoU above which a box is suppressed.

    Returns:
        bool [B, N], True where kept.
    """
    num_images, num_boxes = scores.shape
    keep = torch.zeros_like(scores, dtype=torch.bool)
    across = torch.cat([boxes.new_full((number,), level) for level, number in enumerate(num_per_level)])
    step = max(1, MAX_BOXES // num_boxes)
    for start in range(0, num_images, step):
        own = scores[start : start + step]
        down = torch.arange(len(own), device=boxes.device)[:, None]
        corners = torch.stack([across.expand_as(own), down.expand_as(own)], dim=-1)
        moved = boxes[start : start + step] + corners.repeat(1, 1, 2)
        kept = nms_of_one(moved.flatten(0, 1), own.flatten(), nms_iou)
        keep.view(-1).index_fill_(0, kept + start * num_boxes, True)
    return keep


def nms_by_row(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """`nms_mask` for a CPU, with torchvision's NMS row by row, which is many times as fast there."""
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for row, num in enumerate((scores > score_threshold).sum(1).tolist()):
        keep[row, nms_of_one(boxes[row, :num], scores[row, :num], iou_threshold)] = True
    return keep
