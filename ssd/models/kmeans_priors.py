"""Priors by k-means over the training boxes, their assignment to feature maps, and the fit of priors."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.boxes import cxcywh_to_xyxy, pairwise_iou
from ssd.errors import UserError
from ssd.models.priors import PriorLevel, paper_levels

log = logging.getLogger(__name__)

MAX_BOXES = 10_000
"""Of more boxes, this many are sampled: 300 per cluster of 30 suffice, and 500 000 boxes take seconds."""

PLACING_BOXES = 2_000
POSITIONS = 4  # of a box between two prior centres, per direction
NUM_RESTARTS = 5
MAX_ROUNDS = 100
CHUNK_PAIRS = 4_000_000  # IoUs at a time: 16 MB per tensor

PAPER_SCALES = (0.1, 0.2, 1.05)

WANTED_IOU = 0.6
"""Minimum IoU of a shape with itself shifted by half a cell in both directions. Boxes also differ from their
cluster's centre (IoU about 0.85): both together stay above the 0.5 at which priors are matched."""

MAX_CELLS = 8.0
"""Largest side (of the square of the same area) in cells. The receptive fields of VGG's conv4_3 and of
ResNet-18's feature maps are 11 to 14 cells wide, with most weight in the middle; the paper's largest priors
on its first three feature maps are 4 to 5 cells."""

MIN_CELLS = 1.0
"""Minimum of the shorter side, in cells, of a shape that moves to a coarser feature map: below it, a box of
exactly this shape is at most positions too far from all prior centres for an IoU of 0.5."""


def kmeans_shapes(sizes: Tensor, num_clusters: int, seed: int) -> Tensor:
    """Cluster box sizes by 1 - IoU of boxes with a common centre.

    Centres are initialised as in k-means++, drawn in proportion to that distance, and updated to the median
    width and height of their boxes: it gave a better mean best IoU than the mean (by 0.001 to 0.011 on BCCD,
    Penn-Fudan, VOC and COCO samples, 9 to 30 clusters), because the loss in IoU grows about linearly with
    the difference of sides. The best of five restarts is kept. Of more than 10 000 boxes, 10 000 are sampled.

    Args:
        sizes: float [M, 2], (width, height) of boxes, normalised; empty boxes are dropped.
        num_clusters: number of shapes; fewer distinct sizes give fewer shapes, with a warning.
        seed: of the sample and the restarts; the same boxes and seed give the same shapes.

    Returns:
        float32 [K, 2], normalised, sorted by area.

    Raises:
        UserError: no box has an area.

    Source: Redmon and Farhadi, "YOLO9000" (CVPR 2017), section 2; Arthur and Vassilvitskii, "k-means++"
    (SODA 2007) for the start.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = _sample(_usable(sizes), MAX_BOXES, generator)
    shapes: Tensor = torch.unique(sizes, dim=0)
    if len(shapes) < num_clusters:
        log.warning(
            "model.prior_clusters is %d, but the training boxes have only %d distinct sizes: fewer shapes",
            num_clusters,
            len(shapes),
        )
    if len(shapes) > num_clusters:
        found = [_cluster(sizes, num_clusters, generator) for _ in range(NUM_RESTARTS)]
        fits = [float(size_iou(sizes, centres).amax(1).mean()) for centres in found]
        shapes = found[fits.index(max(fits))]
    order = shapes.prod(1).argsort(stable=True)
    return shapes[order].float()


def kmeans_levels(sizes: Tensor, map_sides: Sequence[int], num_clusters: int, seed: int) -> list[PriorLevel]:
    """Shapes of `kmeans_shapes`, assigned to feature maps; at most as many priors as in the paper's table.

    A shape starts on the coarsest map that is fine enough for boxes between two prior centres (WANTED_IOU),
    but not on one whose receptive field is too small for it (MAX_CELLS). While there are more priors than in
    the paper's table for these maps, the shape with the smallest loss of expected IoU per prior saved moves
    to a coarser map or, where that is too coarse for it (MIN_CELLS), is dropped, with a warning. A map
    without a shape gets the square prior that the paper's table has there.

    Args:
        sizes: float [M, 2], (width, height) of boxes, normalised.
        map_sides: cells per side of each (square) feature map, finest first.
        num_clusters, seed: as in `kmeans_shapes`.

    Raises:
        UserError: no box has an area.
    """
    shapes = kmeans_shapes(sizes, num_clusters, seed).double()
    sizes = _sample(_usable(sizes), PLACING_BOXES, torch.Generator().manual_seed(seed))
    paper = paper_levels(len(map_sides), *PAPER_SCALES)
    budget = sum(side**2 * len(level.shapes) for side, level in zip(map_sides, paper, strict=True))
    places = _places(sizes, shapes, map_sides, budget)
    if num_skipped := sum(place == len(map_sides) for place in places):
        log.warning(
            "model.prior_clusters: %d of %d shapes are used; with the others there would be more priors than "
            "the %d of the paper's table",
            len(shapes) - num_skipped,
            len(shapes),
            budget,
        )
    levels = []
    for level, table in enumerate(paper):
        here = [(w, h) for (w, h), place in zip(shapes.tolist(), places, strict=True) if place == level]
        levels.append(PriorLevel(tuple(here) or table.shapes[:1]))
    return levels


@dataclass(frozen=True)
class PriorFit:
    """How well priors cover boxes, each box by its best prior; None where there are no boxes.

    recall50: fraction of boxes whose best prior has an IoU of 0.5 or more; recall50_by_size: the same for the
    smallest, the middle and the largest third by area.
    """

    num_priors: int
    num_boxes: int
    mean_best_iou: float | None
    recall50: float | None
    recall50_by_size: tuple[float | None, float | None, float | None]


def prior_fit(priors: Tensor, boxes: Tensor) -> PriorFit:
    """Compare every box with every prior. Of more than 10 000 boxes, 10 000 are sampled, with a fixed seed.

    Args:
        priors: float [P, 4], cxcywh, normalised, on any device.
        boxes: float [M, 4], xyxy, normalised; empty boxes are dropped.
    """
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    boxes = _sample(boxes, MAX_BOXES, torch.Generator().manual_seed(0))
    corners = cxcywh_to_xyxy(priors.to(boxes.device))
    chunks = torch.split(boxes, max(1, CHUNK_PAIRS // len(priors)))
    best = torch.cat([pairwise_iou(chunk, corners).amax(1) for chunk in chunks])
    matched = (best >= 0.5).double()
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    small, middle, large = matched[areas.argsort(stable=True)].tensor_split(3)
    return PriorFit(
        num_priors=len(priors),
        num_boxes=len(boxes),
        mean_best_iou=_mean(best.double()),
        recall50=_mean(matched),
        recall50_by_size=(_mean(small), _mean(middle), _mean(large)),
    )


def size_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes with a common centre: (width, height) [N, 2] and [M, 2] to [N, M]."""
    return pairwise_iou(torch.cat([-a / 2, a / 2], 1), torch.cat([-b / 2, b / 2], 1))


def _usable(sizes: Tensor) -> Tensor:
    """Sizes above zero, float64."""
    sizes = sizes[(sizes > 0).all(1)].double()
    if not len(sizes):
        raise UserError(
            "kmeans, but no training box has an area; set paper or table, or add training images with boxes",
            key="model.priors",
        )
    return sizes


def _sample(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=generator)[:most]]


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _cluster(sizes: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """One run of k-means: sizes float64 [M, 2], more than K distinct ones, to centres [K, 2]."""
    centres = sizes[torch.randint(len(sizes), (1,), generator=generator)]
    while len(centres) < num_clusters:
        distance = (1 - size_iou(sizes, centres).amax(1)).clamp(min=0)
        centres = torch.cat([centres, sizes[torch.multinomial(distance, 1, generator=generator)]])
    nearest = None
    for _ in range(MAX_ROUNDS):
        iou, found = size_iou(sizes, centres).max(1)
        if nearest is not None and torch.equal(found, nearest):
            break
        nearest = found
        members = [sizes[nearest == cluster] for cluster in range(num_clusters)]
        # An empty cluster restarts from one of the boxes with the lowest IoU.
        spare = iter(sizes[iou.topk(num_clusters, largest=False).indices])
        centres = torch.stack([_median(rows) if len(rows) else next(spare) for rows in members])
    return centres


def _median(rows: Tensor) -> Tensor:
    """Medians of the columns, [M, C] to [C]; of an even number of rows, the mean of the two in the middle."""
    return rows.sort(dim=0).values[[(len(rows) - 1) // 2, len(rows) // 2]].mean(0)


def _places(sizes: Tensor, shapes: Tensor, map_sides: Sequence[int], budget: int) -> list[int]:
    """The feature map of each shape, len(map_sides) for dropped ones; at most `budget` priors in all."""
    sides = torch.tensor(map_sides)
    place = _first_places(shapes, sides)
    # Dropped shapes are on an additional map, where every IoU is 0 and priors do not count.
    iou = torch.cat([_expected_iou(sizes, shapes, sides), torch.zeros(len(sizes), len(shapes), 1)], dim=2)
    cells = torch.cat([sides**2, torch.zeros(1, dtype=torch.int64)])
    fine_enough = shapes.amin(1)[:, None] * sides >= MIN_CELLS
    allowed = torch.cat([fine_enough, torch.ones(len(shapes), 1, dtype=torch.bool)], dim=1)
    allowed &= torch.arange(len(cells)) > place[:, None]
    while True:
        count = torch.bincount(place, minlength=len(cells))
        # A map without a shape has one prior per cell: removing its last shape saves none, a first adds none.
        if int((count.clamp(min=1) * cells).sum()) <= budget:
            return [int(level) for level in place]
        saved = torch.where(count > 1, cells, 0)[place][:, None] - torch.where(count > 0, cells, 0)
        price = _loss_of_moves(iou, place) / saved
        price[~allowed | (saved <= 0)] = torch.inf
        assert price.amin() < torch.inf, "a map with two shapes can lose one; the budget has four per map"
        shape, target = divmod(int(price.argmin()), len(cells))
        place[shape] = target
        allowed[shape, : target + 1] = False


def _first_places(shapes: Tensor, sides: Tensor) -> Tensor:
    """int64 [K]: the coarsest map with WANTED_IOU at half a cell's shift, else the finest; then MAX_CELLS."""
    kept = (1 - 0.5 / (shapes[:, None] * sides[:, None])).clamp(min=0).prod(-1)
    fine_enough = kept / (2 - kept) >= WANTED_IOU
    coarsest = (fine_enough.sum(1) - 1).clamp(min=0)
    too_large = shapes.prod(1).sqrt()[:, None] * sides > MAX_CELLS
    return torch.maximum(coarsest, too_large.sum(1).clamp(max=len(sides) - 1))


def _expected_iou(sizes: Tensor, shapes: Tensor, sides: Tensor) -> Tensor:
    """Expected IoU of box and prior: the mean over positions of the box between prior centres.

    sizes [M, 2], shapes [K, 2] and the sides of L feature maps, in cells, to [M, K, L].
    """
    steps = (torch.arange(POSITIONS) + 0.5) / POSITIONS / 2  # fractions of a cell, 0 to a half
    half, shorter = (sizes[:, None] + shapes) / 2, torch.minimum(sizes[:, None], shapes)
    areas = (sizes.prod(1)[:, None] + shapes.prod(1))[..., None, None]
    maps = []
    for side in sides:
        offset = steps / side
        overlap = torch.minimum(shorter[..., None], half[..., None] - offset).clamp(min=0)  # [M, K, 2, steps]
        both = overlap[:, :, 0, :, None] * overlap[:, :, 1, None]
        maps.append((both / (areas - both)).mean((-1, -2)))
    return torch.stack(maps, dim=2)


def _loss_of_moves(iou: Tensor, place: Tensor) -> Tensor:
    """Loss of mean best IoU if a shape moves to a map: iou [M, K, L], place int64 [K], to [K, L]."""
    now = iou.gather(2, place.expand(len(iou), -1)[..., None])[..., 0]
    best, shape = now.max(1)
    rest = now.scatter(1, shape[:, None], 0).amax(1)
    without = torch.where(shape[:, None] == torch.arange(len(place)), rest[:, None], best[:, None])
    return best.mean() - torch.maximum(without[..., None], iou).mean(0)
