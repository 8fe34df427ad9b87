"""Prior boxes (the paper's default boxes): one table in the config, the rest follows from the maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import sqrt

import torch
from torch import Tensor


@dataclass(frozen=True)
class PriorLevel:
    """The priors of every cell of one feature map.

    scale: side of the square prior, share of the image; extra_scale: side of the extra square prior;
    aspect_ratios: width to height; each gives a wide prior and its tall twin.
    """

    scale: float
    extra_scale: float
    aspect_ratios: tuple[float, ...]

    def shapes(self) -> list[tuple[float, float]]:
        """(width, height) of each prior of a cell, shares of the image: w = s sqrt(a), h = s / sqrt(a)."""
        shapes = [(self.scale, self.scale), (self.extra_scale, self.extra_scale)]
        for ratio in self.aspect_ratios:
            wide, narrow = self.scale * sqrt(ratio), self.scale / sqrt(ratio)
            shapes += [(wide, narrow), (narrow, wide)]
        return shapes


def paper_levels(num_levels: int, first: float, second: float, last: float) -> list[PriorLevel]:
    """The paper's table for `num_levels` feature maps (SSD, section 2.2 and 3.1).

    Scales run from `first` (conv4_3 is set apart in the paper) over `second` in even steps to `last`,
    which is one past the last level; the extra box has the geometric mean of two neighbouring scales.
    Ratio 3 is left out on the first and the last two levels: 4, 6, ..., 6, 4, 4 priors a cell.
    With 0.1, 0.2 and 1.05 on 38/19/10/5/3/1 maps these are SSD300's 8732 priors.
    """
    step = (last - second) / max(num_levels - 1, 1)
    scales = [first, *(second + step * level for level in range(num_levels))]
    levels = []
    for level in range(num_levels):
        few = level == 0 or level >= num_levels - 2
        extra = sqrt(scales[level] * scales[level + 1])
        levels.append(PriorLevel(scales[level], extra, (2.0,) if few else (2.0, 3.0)))
    return levels


def make_priors(map_sizes: Sequence[tuple[int, int]], levels: Sequence[PriorLevel]) -> Tensor:
    """All priors, level by level, row by row, cell by cell.

    Args:
        map_sizes: (height, width) of each feature map, in cells.
        levels: the priors of a cell of each map.

    Returns:
        float32 [P, 4], cxcywh, shares of the image; not clipped to it.
    """
    if len(map_sizes) != len(levels):
        raise ValueError(f"{len(map_sizes)} feature maps but priors for {len(levels)}")
    priors = []
    for (height, width), level in zip(map_sizes, levels, strict=True):
        shapes = level.shapes()
        for row, column in product(range(height), range(width)):
            centre = ((column + 0.5) / width, (row + 0.5) / height)
            priors += [(*centre, *shape) for shape in shapes]
    return torch.tensor(priors, dtype=torch.float32)
