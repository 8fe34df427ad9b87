"""Anchors of a Faster R-CNN by k-means over the training boxes: each shape on the level where it fits."""

from collections.abc import Sequence
from math import log2, sqrt

from torch import Tensor

from ssd.models.faster_rcnn.config import level_strides
from ssd.models.kmeans_priors import kmeans_shapes
from ssd.models.priors import PriorLevel

CELLS = 8.0
"""Side (of the square of the same area) of an anchor in cells of the level where it fits, as in the table: 32
pixels at stride 4. With 12 the mean best IoU of nine shapes on 300 pixels was 0.003 to 0.036 higher (samples
of COCO, Penn-Fudan and BCCD), for 1.2 to 2.9 times as many anchors; with 4 it was 0.014 to 0.085 lower."""


def kmeans_anchors(sizes: Tensor, side: int, num_clusters: int, seed: int) -> tuple[PriorLevel, ...]:
    """Shapes of `kmeans_shapes`, each on the level whose cells are nearest to an eighth of its side.

    A level where none fits takes the shape that is nearest, a second time: it has to have one, and the shape
    gets more positions.

    Args:
        sizes: float [M, 2], (width, height) of boxes, normalised.
        side: of the input, pixels.
        num_clusters, seed: as in `kmeans_shapes`.

    Returns:
        The anchors of each level, finest first, normalised.

    Raises:
        UserError: no box has an area.
    """
    shapes = [(width, height) for width, height in kmeans_shapes(sizes, num_clusters, seed).tolist()]
    strides = level_strides(side)
    fitting = [_misfits(shape, strides, side) for shape in shapes]
    places = [misfits.index(min(misfits)) for misfits in fitting]
    levels = []
    for level in range(len(strides)):
        here = [shape for shape, place in zip(shapes, places, strict=True) if place == level]
        nearest = min(range(len(shapes)), key=lambda number: fitting[number][level])
        levels.append(PriorLevel(tuple(here) or (shapes[nearest],)))
    return tuple(levels)


def _misfits(shape: tuple[float, float], strides: Sequence[int], side: int) -> list[float]:
    """How far a shape is from CELLS cells on each level, in octaves."""
    return [abs(log2(sqrt(shape[0] * shape[1]) * side / (CELLS * stride))) for stride in strides]
