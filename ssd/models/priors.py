"""Priors (the paper's "default boxes"): shapes per level from the config, centres from the feature maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from math import isclose, sqrt
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PriorLevel:
    """The priors of every cell of one feature map.

    shapes: (width, height) of each, normalised to [0, 1]; step: distance of neighbouring centres, normalised,
    at the size that the network is built for; None takes the width of a cell, 1 / cells per side.
    """

    shapes: tuple[tuple[float, float], ...]
    step: float | None = None

    @staticmethod
    def from_state(state: dict[str, Any]) -> "PriorLevel":
        """From `dataclasses.asdict` of one, also as JSON has it."""
        return PriorLevel(tuple(map(tuple, state["shapes"])), state["step"])


def paper_levels(num_levels: int, first: float, second: float, last: float) -> list[PriorLevel]:
    """The paper's table for `num_levels` feature maps (SSD, section 2.2 and 3.1).

    The first level has the scale `first` (conv4_3 in the paper); the others run from `second` in even steps
    to `last`, which is the scale after the last level. The extra square prior has the geometric mean of two
    neighbouring scales. Aspect ratios 3 and 1/3 are omitted on the first and the last two levels: 4, 6, ...,
    6, 4, 4 priors per cell. With 0.1, 0.2 and 1.05 on feature maps of 38/19/10/5/3/1 cells per side these are
    SSD300's 8732 priors, with 0.07, 0.15 and 1.05 on 64/32/16/8/4/2/1 SSD512's 24564.
    """
    step = (last - second) / max(num_levels - 1, 1)
    scales = [first, *(second + step * level for level in range(num_levels))]
    levels = []
    for level in range(num_levels):
        few = level == 0 or level >= num_levels - 2
        ratios = (1.0, 2.0, 1 / 2) if few else (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
        levels.append(PriorLevel(_shapes(scales[level], scales[level + 1], ratios)))
    return levels


def table_levels(scales: Sequence[float], ratios: Sequence[Sequence[float]]) -> list[PriorLevel]:
    """Priors from explicit scales, normalised, and aspect ratios (width / height) of each level.

    With one scale more than there are levels, each cell has the paper's extra square prior, as its second.
    Sides longer than the image are clipped to 1.
    """
    levels = []
    for level, ratios_here in enumerate(ratios):
        following = scales[level + 1] if len(scales) > len(ratios) else None
        shapes = _shapes(scales[level], following, ratios_here)
        levels.append(PriorLevel(tuple((min(width, 1.0), min(height, 1.0)) for width, height in shapes)))
    return levels


def _shapes(
    scale: float, following: float | None, ratios: Sequence[float]
) -> tuple[tuple[float, float], ...]:
    """w = s sqrt(a), h = s / sqrt(a) for each ratio; after the first, the extra square of sqrt(s_k s_k+1)."""
    shapes = [(scale * sqrt(ratio), scale / sqrt(ratio)) for ratio in ratios]
    if following is not None:
        extra = sqrt(scale * following)
        shapes.insert(1, (extra, extra))
    return tuple(shapes)


def make_priors(map_sizes: Sequence[tuple[int, int]], levels: Sequence[PriorLevel]) -> Tensor:
    """All priors, level by level, row by row, cell by cell.

    Args:
        map_sizes: (height, width) of each feature map, in cells.
        levels: the priors per cell of each feature map.

    Returns:
        float32 [P, 4], cxcywh, normalised; not clipped to [0, 1].
    """
    if len(map_sizes) != len(levels):
        raise ValueError(f"{len(map_sizes)} feature maps but priors for {len(levels)}")
    priors = []
    for (height, width), level in zip(map_sizes, levels, strict=True):
        step_x, step_y = (level.step, level.step) if level.step else (1 / width, 1 / height)
        for row, column in product(range(height), range(width)):
            centre = ((column + 0.5) * step_x, (row + 0.5) * step_y)
            priors += [(*centre, *shape) for shape in level.shapes]
    return torch.tensor(priors, dtype=torch.float32)


def alike(levels: Sequence[PriorLevel], others: Sequence[PriorLevel]) -> bool:
    """Whether two lists of levels are equal up to rounding."""
    numbers = [
        [number for level in side for number in (level.step or 0.0, *chain.from_iterable(level.shapes))]
        for side in (levels, others)
    ]
    return all(isclose(a, b, rel_tol=1e-6) for a, b in zip(*numbers, strict=True))
