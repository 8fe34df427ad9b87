"""Priors by k-means: the clusters, their maps, and the fit of priors to boxes."""

import logging

import pytest
import torch
from torch import Tensor

from ssd.boxes import cxcywh_to_xyxy, pairwise_iou
from ssd.errors import UserError
from ssd.models.kmeans_priors import PriorFit, kmeans_levels, kmeans_shapes, prior_fit, size_iou
from ssd.models.priors import PriorLevel, make_priors, paper_levels

SIDES = [38, 19, 10, 5, 3, 1]
SIDES_128 = [16, 8, 4, 2, 1]
PLANTED = torch.tensor([[0.05, 0.12], [0.3, 0.1], [0.2, 0.5], [0.7, 0.6]])


def scattered(centres: Tensor, each: int, spread: float, seed: int = 0) -> Tensor:
    """Sizes around `centres`, [len(centres) * each, 2]; log-normal, at most 1."""
    generator = torch.Generator().manual_seed(seed)
    sizes = centres.repeat(each, 1)
    return (sizes * (spread * torch.randn(sizes.shape, generator=generator)).exp()).clamp(max=1)


def placed(sizes: Tensor, seed: int = 0) -> Tensor:
    """Boxes xyxy [n, 4] of these sizes, anywhere inside the image."""
    corner = torch.rand(sizes.shape, generator=torch.Generator().manual_seed(seed)) * (1 - sizes)
    return torch.cat([corner, corner + sizes], dim=1)


def priors_of(levels: list[PriorLevel], sides: list[int] = SIDES) -> Tensor:
    return make_priors([(side, side) for side in sides], levels)


def paper(sides: list[int] = SIDES) -> list[PriorLevel]:
    return paper_levels(len(sides), 0.1, 0.2, 1.05)


def mean_best(sizes: Tensor, shapes: Tensor) -> float:
    return float(size_iou(sizes, shapes).amax(1).mean())


def measured(fit: PriorFit) -> tuple[float, float]:
    """Mean best IoU and recall of a fit that has boxes."""
    assert fit.mean_best_iou is not None and fit.recall50 is not None
    return fit.mean_best_iou, fit.recall50


def test_distance_is_that_of_boxes_with_a_common_centre() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(7, 2, generator=generator), torch.rand(5, 2, generator=generator)
    found = size_iou(a, b)
    for row, (aw, ah) in enumerate(a.tolist()):
        for column, (bw, bh) in enumerate(b.tolist()):
            both = min(aw, bw) * min(ah, bh)
            assert found[row, column] == pytest.approx(both / (aw * ah + bw * bh - both), abs=1e-6)


def test_planted_clusters_are_found_and_sorted_by_area() -> None:
    shapes = kmeans_shapes(scattered(PLANTED, each=60, spread=0.08), 4, seed=0)
    assert shapes.dtype == torch.float32
    by_area = PLANTED[PLANTED.prod(1).argsort()]
    torch.testing.assert_close(shapes, by_area, rtol=0.04, atol=0)


def test_clusters_fit_better_than_boxes_drawn_at_random_and_than_the_papers_table() -> None:
    sizes = scattered(torch.tensor([[0.03, 0.15], [0.06, 0.4], [0.1, 0.8]]), each=100, spread=0.25)
    table = torch.tensor([shape for level in paper() for shape in level.shapes])
    generator = torch.Generator().manual_seed(1)
    drawn = [sizes[torch.randperm(300, generator=generator)[:9]] for _ in range(10)]
    best = mean_best(sizes, kmeans_shapes(sizes, 9, seed=0))
    assert best > max(mean_best(sizes, shapes) for shapes in drawn)
    assert best > mean_best(sizes, table) + 0.2


def test_more_clusters_fit_better() -> None:
    sizes = scattered(PLANTED, each=80, spread=0.4)
    fits = [mean_best(sizes, kmeans_shapes(sizes, clusters, seed=0)) for clusters in (1, 3, 9, 27)]
    assert fits == sorted(fits)


def test_same_seed_same_shapes_also_where_boxes_are_sampled() -> None:
    sizes = scattered(PLANTED, each=5000, spread=0.3)
    state = torch.get_rng_state()
    first, second, other = (kmeans_shapes(sizes, 3, seed) for seed in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_box_is_the_one_shape(caplog: pytest.LogCaptureFixture) -> None:
    assert kmeans_shapes(torch.tensor([[0.25, 0.5]]), 1, seed=0).tolist() == [[0.25, 0.5]]
    assert not caplog.records


@pytest.mark.parametrize("sizes", [[[0.25, 0.5]] * 40, [[0.5, 0.5], [0.25, 0.25], [0.25, 0.5], [0.25, 0.25]]])
def test_fewer_sizes_than_clusters_are_the_shapes_themselves(
    sizes: list[list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    shapes = kmeans_shapes(torch.tensor(sizes), 9, seed=0)
    expected = sorted({tuple(size) for size in sizes}, key=lambda size: size[0] * size[1])
    assert [tuple(shape) for shape in shapes.tolist()] == expected
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "model.prior_clusters is 9" in record.getMessage()


def test_as_many_shapes_as_clusters_where_most_boxes_are_the_same() -> None:
    sizes = torch.cat([torch.full((500, 2), 0.2), scattered(PLANTED, each=2, spread=0.1)])
    assert len(torch.unique(kmeans_shapes(sizes, 8, seed=0), dim=0)) == 8


@pytest.mark.parametrize("sizes", [torch.zeros(0, 2), torch.tensor([[0.0, 0.3], [0.2, 0.0]])])
def test_no_box_with_an_area_is_the_users_mistake(sizes: Tensor) -> None:
    with pytest.raises(UserError, match=r"model\.priors: kmeans, but no training box"):
        kmeans_shapes(sizes, 9, seed=0)
    with pytest.raises(UserError, match="model.priors"):
        kmeans_levels(sizes, SIDES, 9, seed=0)


def test_empty_boxes_are_left_out() -> None:
    sizes = scattered(PLANTED, each=20, spread=0.1)
    with_empty = torch.cat([sizes, torch.tensor([[0.0, 0.0], [0.1, 0.0]])])
    assert torch.equal(kmeans_shapes(with_empty, 4, seed=0), kmeans_shapes(sizes, 4, seed=0))


@pytest.mark.parametrize("sides", [SIDES, SIDES_128, [3, 1], [1]])
@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("clusters", [1, 9, 60])
def test_every_map_has_a_prior_and_together_they_are_no_more_than_the_papers(
    sides: list[int], scale: float, clusters: int
) -> None:
    sizes = scattered(scale * PLANTED, each=40, spread=0.5)
    levels = kmeans_levels(sizes, sides, clusters, seed=0)
    assert len(levels) == len(sides)
    assert all(level.shapes and level.step is None for level in levels)
    assert len(priors_of(levels, sides)) <= len(priors_of(paper(sides), sides))


def test_a_map_without_a_shape_has_the_papers_square_there() -> None:
    levels = kmeans_levels(torch.tensor([[0.12, 0.1]]), SIDES, 1, seed=0)
    alone = [level.shapes for level in levels]
    assert [len(shapes) for shapes in alone] == [1] * 6
    squares = [level.shapes[0] for level in paper()]
    (kept,) = (index for index, shapes in enumerate(alone) if shapes[0] != squares[index])
    assert alone[kept][0] == pytest.approx((0.12, 0.1))


def level_of(width: float, height: float) -> int:
    """The map of the only shape there is."""
    levels = kmeans_levels(torch.tensor([[width, height]]), SIDES, 1, seed=0)
    close = [level.shapes[0] == pytest.approx((width, height)) for level in levels]
    return close.index(True)


def test_larger_shapes_are_on_coarser_maps() -> None:
    maps = [level_of(side, side) for side in (0.02, 0.05, 0.15, 0.3, 0.6, 0.95)]
    assert maps == sorted(maps)
    assert maps[0] == 0 and maps[-1] >= 3


def test_thin_shapes_are_on_finer_maps_than_squares_of_their_area() -> None:
    assert level_of(0.2, 0.8) == level_of(0.8, 0.2) < level_of(0.4, 0.4)


def test_where_priors_are_too_many_some_shapes_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sizes = scattered(0.1 * PLANTED, each=100, spread=0.5)
    levels = kmeans_levels(sizes, SIDES, 30, seed=0)
    assert len(levels[0].shapes) <= 6
    assert "of 30 shapes are used" in caplog.text and "8732" in caplog.text


@pytest.mark.parametrize("clusters", [9, 15, 30])
def test_boxes_that_the_papers_table_suits_badly_are_covered_better(clusters: int) -> None:
    sizes = scattered(torch.tensor([[0.05, 0.25], [0.12, 0.55], [0.2, 0.8]]), each=100, spread=0.2)
    boxes = placed(sizes)
    before = prior_fit(priors_of(paper()), boxes)
    after = prior_fit(priors_of(kmeans_levels(sizes, SIDES, clusters, seed=0)), boxes)
    assert after.num_priors <= before.num_priors == 8732
    assert measured(after)[0] > measured(before)[0] + 0.1
    assert measured(after)[1] > measured(before)[1] + 0.1


def test_levels_depend_on_the_boxes_and_the_seed_only() -> None:
    sizes = scattered(PLANTED, each=600, spread=0.3)
    assert kmeans_levels(sizes, SIDES, 12, seed=3) == kmeans_levels(sizes, SIDES, 12, seed=3)


def test_fit_is_that_of_the_table_of_all_pairs() -> None:
    priors = priors_of(paper([4, 2]), [4, 2])
    boxes = placed(scattered(PLANTED, each=10, spread=0.3))
    best = pairwise_iou(boxes, cxcywh_to_xyxy(priors)).amax(1)
    fit = prior_fit(priors, boxes)
    assert (fit.num_priors, fit.num_boxes) == (len(priors), 40)
    assert measured(fit) == pytest.approx((best.mean().item(), (best >= 0.5).float().mean().item()))


def test_fit_by_size_is_that_of_each_third() -> None:
    """Priors of the largest third only: the others are covered badly."""
    sizes = torch.tensor([[0.01, 0.01], [0.05, 0.05], [0.5, 0.5]]).repeat(5, 1)
    priors = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    boxes = cxcywh_to_xyxy(torch.cat([torch.full((15, 2), 0.5), sizes], dim=1))
    fit = prior_fit(priors, boxes)
    assert fit.recall50_by_size == (0.0, 0.0, 1.0)
    assert fit.recall50 == pytest.approx(1 / 3)


def test_fit_in_chunks_is_the_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    priors, boxes = priors_of(paper(SIDES_128), SIDES_128), placed(scattered(PLANTED, each=5, spread=0.3))
    whole = prior_fit(priors, boxes)
    monkeypatch.setattr("ssd.models.kmeans_priors.CHUNK_PAIRS", 10)
    assert prior_fit(priors, boxes) == whole


def test_of_many_boxes_the_fit_samples_always_the_same() -> None:
    boxes = placed(scattered(PLANTED, each=3000, spread=0.3))
    priors = priors_of(paper([4, 2]), [4, 2])
    fit = prior_fit(priors, boxes)
    assert fit.num_boxes == 10_000
    assert prior_fit(priors, boxes) == fit


@pytest.mark.parametrize("boxes", [torch.zeros(0, 4), torch.tensor([[0.5, 0.5, 0.5, 0.7]])])
def test_without_boxes_there_is_no_fit(boxes: Tensor) -> None:
    assert prior_fit(priors_of(paper()), boxes) == PriorFit(8732, 0, None, None, (None, None, None))
