"""Bootstrap intervals: a resample is the evaluation of the images that were drawn, repeated as drawn."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from benchmarks.scenes import random_detections
from ssd.metrics.bootstrap import CHUNK, CocoIntervals, bootstrap_coco, draw_images, resampled
from ssd.metrics.coco import CocoResult, evaluate_coco, match_classes
from ssd.structures import Detections, Objects

NAMES = ["ant", "bee", "cat", "dog", "eel"]


def scenes(seed: int, num_images: int, num_classes: int = 4) -> tuple[list[Detections], list[Objects]]:
    """Some objects are ignored, and all scores differ; eels are absent."""
    return random_detections(num_images, num_classes, 30, torch.Generator().manual_seed(seed))


def repeated(items: Sequence[Detections], draws: np.ndarray) -> list[Detections]:
    return [item for item, times in zip(items, draws, strict=True) for _ in range(times)]


def figures(result: CocoResult) -> list[float]:
    """Per class AP and AP50, NaN where there is no object."""
    values = [*result.per_class_map.values(), *result.per_class_map50.values()]
    return [np.nan if value is None else value for value in values]


@pytest.mark.parametrize("seed", range(4))
def test_an_image_drawn_k_times_is_an_image_of_weight_k(seed: int) -> None:
    found, truth = scenes(seed, 12)
    matches = match_classes(found, truth, NAMES)
    assert list(matches) == NAMES[:4]
    assert any((~(item.correct | item.wrong)).any() for item in matches.values()), "some are not counted"
    (draws,) = draw_images(12, 20, seed)
    got = resampled(matches, draws)
    for number, row in enumerate(draws):
        expected = evaluate_coco(repeated(found, row), repeated(truth, row), NAMES[:4])
        ap, ap50 = got[:, :, number].mean(axis=1), got[:, 0, number]
        np.testing.assert_allclose([*ap, *ap50], figures(expected), rtol=0, atol=1e-12)
        assert np.nanmean(ap) == pytest.approx(expected.map, abs=1e-12)


def test_every_image_once_gives_the_figures_themselves() -> None:
    found, truth = scenes(5, 60)
    ap = resampled(match_classes(found, truth, NAMES), np.ones((1, 60), dtype=np.int32))
    expected = evaluate_coco(found, truth, NAMES[:4])
    np.testing.assert_allclose(ap.mean(axis=1)[:, 0], figures(expected)[:4], rtol=0, atol=1e-12)


def test_a_resample_without_an_object_of_a_class_does_not_count_for_it() -> None:
    """The only ant is in the first image, the only bee in the second; the bee is not found."""
    box = torch.tensor([[0.0, 0, 10, 10]])
    one, two, plain = torch.tensor([1]), torch.tensor([2]), torch.tensor([False])
    truth = [Objects(box, one, plain), Objects(box, two, plain)]
    found = [Detections(box, torch.tensor([0.9]), one)] * 2
    draws = np.array([[2, 0], [0, 2], [1, 1]], dtype=np.int32)
    np.testing.assert_allclose(
        resampled(match_classes(found, truth, NAMES), draws)[:, 0], [[1, np.nan, 1], [np.nan, 0, 0]]
    )
    intervals = bootstrap_coco(match_classes(found, truth, NAMES), NAMES, 2, 200)
    assert intervals.map == intervals.map50 == pytest.approx((0, 1))
    assert intervals.per_class_map["ant"] == pytest.approx((1, 1))
    assert [intervals.per_class_map[name] for name in NAMES[1:]] == [(0, 0), None, None, None]


def test_as_many_images_are_drawn_as_there_are_and_each_as_often_as_any_other() -> None:
    chunks = list(draw_images(30, 2 * CHUNK + 5, seed=1))
    assert [len(draws) for draws in chunks] == [CHUNK, CHUNK, 5]
    draws = np.concatenate(chunks)
    assert (draws.sum(axis=1) == 30).all()
    assert draws.mean(axis=0) == pytest.approx(1, abs=0.4)
    assert draws.var() == pytest.approx(1 - 1 / 30, abs=0.1)
    again = np.concatenate(list(draw_images(30, 2 * CHUNK + 5, seed=1)))
    np.testing.assert_array_equal(draws, again)


def test_an_interval_is_as_wide_as_theory_says() -> None:
    """One object an image, four of five of them found and nothing else: AP is a mean of zeros and ones."""
    num_images, box = 400, torch.tensor([[0.0, 0, 10, 10]])
    scores = torch.rand(num_images, 1, generator=torch.Generator().manual_seed(0))
    truth = [Objects(box, torch.tensor([1]), torch.tensor([False]))] * num_images
    found = [
        Detections(box[:hit], scores[image, :hit], torch.tensor([1])[:hit])
        for image, hit in enumerate([0, 1, 1, 1, 1] * (num_images // 5))
    ]
    intervals = bootstrap_coco(match_classes(found, truth, NAMES), NAMES, num_images, 1000)
    half = 1.96 * (0.8 * 0.2 / num_images) ** 0.5
    # Recall is sampled in steps of a hundredth.
    assert intervals.map50 == pytest.approx((0.8 - half, 0.8 + half), abs=0.012)


def test_the_seed_decides() -> None:
    found, truth = scenes(3, 40)
    matches = match_classes(found, truth, NAMES)
    one, same, other = (bootstrap_coco(matches, NAMES, 40, 100, seed) for seed in (0, 0, 1))
    assert one == same != other
    assert one.per_class_map50["eel"] is None


def test_without_objects_there_is_no_interval() -> None:
    nothing = CocoIntervals(None, None, {"ant": None}, {"ant": None})
    assert bootstrap_coco({}, ["ant"], 3, 10) == nothing
    assert bootstrap_coco({}, ["ant"], 0, 10) == nothing


def test_without_detections_the_interval_is_zero() -> None:
    truth = [Objects(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1]), torch.tensor([False]))]
    found = [Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))]
    assert bootstrap_coco(match_classes(found, truth, NAMES), NAMES, 1, 10).map == (0.0, 0.0)
