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

RoIAlign = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]
"""(maps, rois, levels) to features, as `roi_align_by_level`."""


def rois_of(boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """What RoI align takes, of boxes float32 [B, N, 4], xyxy, normalised, in inputs of `side` pixels.

    Returns:
        rois float32 [B * N, 5]: the image in the batch, then xyxy in pixels; levels int64 [B * N], 0 to 3.
    """
    image = torch.ones_like(boxes[..., :1]).cumsum(0) - 1  # of arange a trace would fix the device
    rois = torch.cat([image, boxes * side], dim=2)
    return rois.flatten(0, 1), levels_of(boxes, side).flatten()


def levels_of(boxes: Tensor, side: int) -> Tensor:
    """The level of each box [..., 4], xyxy, normalised, in an input of `side` pixels: int64 [...], 0 to 3."""
    width, height = sides_of(boxes)
    size = (width.clamp(min=0) * side * (height.clamp(min=0) * side)).sqrt()
    level = CANONICAL_LEVEL + torch.log2(size / CANONICAL_SIDE) + 1e-6
    return level.floor().clamp(0, len(STRIDES) - 1).to(torch.int64)


def sides_of(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height, [...] each, of boxes [..., 4], xyxy.

    Apart, because ONNX Runtime gives a reduction of no box over both a wrong shape.
    """
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return width, height


def roi_align_in_pytorch(maps: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
    """`roi_align_by_level`; on a CPU by sums, which take half of its time there, with gradients a third."""
    align = roi_align_by_sums if rois.device.type == "cpu" else roi_align_by_level
    return align(maps, rois, levels)


def roi_align_by_level(maps: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
    """torchvision's RoI align, of each box on its own level: data-dependent shapes.

    Args:
        maps: [B, C, S_i, S_i], one per stride in STRIDES.
        rois: float32 [R, 5]; levels: int64 [R]; both as `rois_of` gives them.

    Returns:
        [R, C, 7, 7].
    """
    features = maps[0].new_zeros(len(rois), maps[0].shape[1], GRID, GRID)
    for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        own = (levels == level).nonzero()[:, 0]
        # In float32: a coordinate in bfloat16 is off by a pixel in 300.
        features[own] = roi_align(x.float(), rois[own], GRID, 1 / stride, SAMPLES).to(features.dtype)
    return features


def roi_align_by_sums(maps: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
    """`roi_align_by_level` by tensor operations alone: for a graph without torchvision. Static shapes."""
    features: Tensor = _weighted_sums(list(maps), rois, levels, list(STRIDES), GRID, SAMPLES)
    return features


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def _weighted_sums(
    maps: list[Tensor], rois: Tensor, levels: Tensor, strides: list[int], grid: int, samples: int
) -> Tensor:
    """Every feature is a weighted sum of cells: samples x samples bilinear samples, of four cells each.

    The cells of all maps are the rows of one table, so that boxes of all levels and images are one call.
    """
    table = torch.cat([x.permute(0, 2, 3, 1).flatten(0, 2) for x in maps]).float()
    sides = [x.shape[3] for x in maps]
    first_rows = [0]
    for x in maps[:-1]:
        first_rows.append(first_rows[-1] + x.shape[0] * x.shape[2] * x.shape[3])
    stride = torch.tensor(strides, device=rois.device)[levels]
    side = torch.tensor(sides, device=rois.device)[levels]
    first = torch.tensor(first_rows, device=rois.device)[levels] + rois[:, 0].long() * side * side

    # x and y of the samples, in cells from the centre of the first one: [R, 2, samples of a row].
    start, end = (rois[:, 1:] / stride[:, None]).view(-1, 2, 2, 1).unbind(1)
    number = grid * samples
    steps = (torch.arange(number, dtype=rois.dtype, device=rois.device) + 0.5) / number
    place = start + (end - start).clamp(min=1) * steps
    # Up to a cell past the last centre they take its value, farther out 0.
    last = (side - 1)[:, None, None]
    inside = place <= last + 1
    place = torch.minimum(place, last.to(place.dtype))
    low = place.floor()
    share = place - low
    cells = torch.stack([low.long(), torch.minimum(low.long() + 1, last)], dim=-1)
    weights = torch.stack([1 - share, share], dim=-1) * inside[..., None] / samples

    # [R, rows of the grid, 1, cells of a row, 1] and [R, 1, columns, 1, cells of a column].
    column, row = cells.view(-1, 2, grid, 2 * samples).unbind(1)
    column_weight, row_weight = weights.view(-1, 2, grid, 2 * samples).unbind(1)
    index = (first[:, None, None] + row * side[:, None, None])[:, :, None, :, None]
    index = index + column[:, None, :, None, :]
    weight = row_weight[:, :, None, :, None] * column_weight[:, None, :, None, :]
    features = F.embedding_bag(
        index.flatten(3).flatten(0, 2),
        table,
        mode="sum",
        per_sample_weights=weight.flatten(3).flatten(0, 2),
    )
    return features.view(-1, grid, grid, table.shape[1]).permute(0, 3, 1, 2).to(maps[0].dtype)
