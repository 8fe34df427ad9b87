"""RoI align on a feature pyramid: 7 x 7 features of each box, by torchvision or by tensor operations alone.

He et al., "Mask R-CNN" (ICCV 2017), section 3; the level of a box by Lin et al., "Feature Pyramid Networks"
(CVPR 2017), section 4.2, equation 1. As in torchvision's detectors: 2 x 2 samples per cell of the grid, not
aligned.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from ssd.models.faster_rcnn.config import STRIDES

GRID = 7
SAMPLES = 2  # per cell of the grid and direction
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 2  # a box of ImageNet's size belongs to the map of stride 16

RoIAlign = Callable[[Sequence[Tensor], Tensor, int], Tensor]
"""(maps, boxes, side) to features, as `roi_align_by_level`."""


def levels_of(boxes: Tensor, side: int) -> Tensor:
    """The level of each box [..., 4], xyxy, normalised, in an input of `side` pixels: int64 [...], 0 to 3."""
    sizes = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0) * side
    level = CANONICAL_LEVEL + torch.log2(sizes.prod(-1).sqrt() / CANONICAL_SIDE) + 1e-6
    return level.floor().clamp(0, len(STRIDES) - 1).to(torch.int64)


def roi_align_by_level(maps: Sequence[Tensor], boxes: Tensor, side: int) -> Tensor:
    """torchvision's RoI align, of each box on its own level: data-dependent shapes.

    Args:
        maps: [B, C, H_i, W_i], one per stride in STRIDES.
        boxes: float32 [B, N, 4], xyxy, normalised.
        side: of the input, pixels.

    Returns:
        [B * N, C, 7, 7].
    """
    num_images, num_boxes = boxes.shape[:2]
    levels = levels_of(boxes, side).flatten()
    image = torch.arange(num_images, device=boxes.device).repeat_interleave(num_boxes)
    rois = torch.cat([image[:, None], boxes.flatten(0, 1) * side], dim=1)
    features = maps[0].new_zeros(len(rois), maps[0].shape[1], GRID, GRID)
    for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        own = (levels == level).nonzero()[:, 0]
        # In float32: a coordinate in bfloat16 is off by a pixel in 300.
        features[own] = roi_align(x.float(), rois[own], GRID, 1 / stride, SAMPLES).to(features.dtype)
    return features


def roi_align_by_grid(maps: Sequence[Tensor], boxes: Tensor, side: int) -> Tensor:
    """`roi_align_by_level` with static shapes, by tensor operations alone: for a graph without torchvision.

    Every box is sampled on every level, and its own level is chosen; four times as much work.
    """
    levels = levels_of(boxes, side)
    features = torch.zeros((), dtype=maps[0].dtype, device=boxes.device)
    for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        own = (levels == level)[:, None, :, None, None]
        features = features + torch.where(own, _sample_map(x, boxes * (side / stride)), 0)
    return features.transpose(1, 2).flatten(0, 1)


def _sample_map(x: Tensor, boxes: Tensor) -> Tensor:
    """Features [B, C, N, 7, 7] of boxes [B, N, 4] in cells of a feature map [B, C, H, H], H from 2."""
    num_images, num_boxes = boxes.shape[:2]
    cells = x.shape[3]
    number = GRID * SAMPLES
    steps = (torch.arange(number, dtype=boxes.dtype, device=boxes.device) + 0.5) / number
    start, extent = boxes[..., :2], (boxes[..., 2:] - boxes[..., :2]).clamp(min=1)
    columns, rows = (start[..., None, :] + steps[:, None] * extent[..., None, :]).unbind(-1)
    columns = columns[..., None, :].expand(-1, -1, number, -1)
    rows = rows[..., :, None].expand(-1, -1, -1, number)
    # Samples up to a cell past the last centre take its value, those farther out are 0.
    inside = (columns <= cells) & (rows <= cells)
    both = torch.stack([columns, rows], dim=-1).flatten(1, 2)
    grid = 2 * both / (cells - 1) - 1
    sampled = F.grid_sample(x, grid.to(x.dtype), padding_mode="border", align_corners=True)
    sampled = sampled.view(num_images, -1, num_boxes, number, number)
    sampled = torch.where(inside[:, None], sampled, 0)
    return sampled.view(num_images, -1, num_boxes, GRID, SAMPLES, GRID, SAMPLES).mean((4, 6))
