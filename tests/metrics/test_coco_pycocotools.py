"""The published COCO figures: pycocotools' own, whatever the data, and nothing that differs gets through."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from detected_images import NAMES, crowded_images, one_image, random_images

from benchmarks.evaluation import coco_dataset, coco_results, pycocotools_stats
from ssd.errors import UserError
from ssd.metrics.coco import evaluate_coco
from ssd.metrics.coco_pycocotools import check_agreement, published_coco
from ssd.structures import Detections, Objects

Images = tuple[list[Detections], list[Objects]]


def large(images: Images) -> Images:
    """Four times as large, so that there are small, medium and large objects."""
    found, truth = images
    return (
        [Detections(item.boxes * 4, item.scores, item.labels) for item in found],
        [Objects(item.boxes * 4, item.labels, item.ignored) for item in truth],
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("images", [random_images, crowded_images])
def test_the_twelve_figures_are_those_of_pycocotools_and_ours_agree(
    images: Callable[[int], Images], seed: int
) -> None:
    found, truth = large(images(seed))
    published = published_coco(found, truth, NAMES)
    stats = pycocotools_stats(coco_dataset(truth, NAMES), coco_results(found)).tolist()
    expected = [None if value == -1 else pytest.approx(value, abs=1e-12) for value in stats]
    assert list(published.figures.values()) == expected
    check_agreement(published, evaluate_coco(found, truth, NAMES))


def test_boxes_that_float32_would_round_agree() -> None:
    """Of x2 - x1 float32 loses the last bits where x1 is small; the IoUs are at the thresholds."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(400, 2, generator=generator)
    boxes = torch.cat([corner, corner + 10 + 40 * torch.rand(400, 2, generator=generator)], dim=1)
    shorter = boxes.clone()
    steps = 0.05 * torch.randint(10, 20, (400,), generator=generator)
    shorter[:, 2] = boxes[:, 0] + (boxes[:, 2] - boxes[:, 0]) * steps
    ones, scores = torch.ones(400, dtype=torch.int64), torch.rand(400, generator=generator)
    truth = [Objects(boxes[i : i + 1], ones[:1], torch.tensor([False])) for i in range(400)]
    found = [Detections(shorter[i : i + 1], scores[i : i + 1], ones[:1]) for i in range(400)]
    check_agreement(published_coco(found, truth, ["ant"]), evaluate_coco(found, truth, ["ant"]))


@pytest.mark.filterwarnings("error")
def test_of_two_hundred_detections_the_best_hundred_of_a_class_count() -> None:
    misses = [[100.0, 100, 110, 110]] * 150
    found, truth = one_image([*misses, [0, 0, 10, 10]], [[0, 0, 10, 10]])
    published = published_coco(found, truth, NAMES)
    assert published.figures["map"] == published.figures["ar100"] == 0.0
    check_agreement(published, evaluate_coco(found, truth, NAMES))


def test_where_there_is_no_object_there_is_no_figure() -> None:
    found, truth = one_image([[0, 0, 10, 10]], [[0.0, 0, 10, 10]])
    published = published_coco(found, truth, NAMES)
    assert published.figures["map_small"] == pytest.approx(1)
    assert published.figures["map_large"] is published.figures["ar_medium"] is None
    assert published.per_class_map50 == {"ant": pytest.approx(1), "bee": None, "cat": None, "dog": None}


@pytest.mark.parametrize(
    ("boxes", "truth", "num_images"),
    [
        ([[0.0, 0, 10, 10]], [], 1),
        ([], [], 1),
        ([], [], 0),
        ([[0.0, 0, 10, 10]], [[0.0, 0, 10, 10]], 1),
    ],
)
def test_without_counted_objects_every_figure_is_none(
    boxes: list[list[float]], truth: list[list[float]], num_images: int
) -> None:
    found, ignored = one_image(boxes, truth, [True] * len(truth))
    found, ignored = found[:num_images], ignored[:num_images]
    published = published_coco(found, ignored, ["ant"])
    assert set(published.figures.values()) == {None}
    assert published.per_class_map == published.per_class_map50 == {"ant": None}
    check_agreement(published, evaluate_coco(found, ignored, ["ant"]))


def test_a_difference_is_refused_with_both_figures() -> None:
    found, truth = random_images(1)
    published, own = published_coco(found, truth, NAMES), evaluate_coco(found, truth, NAMES)
    assert own.map75 is not None and own.per_class_map50["bee"] is not None
    with pytest.raises(UserError, match=r"COCO's map75 is 0\.\d+ by torchmetrics, but 0\.\d+ by ssd/metrics"):
        check_agreement(published, replace(own, map75=own.map75 + 2e-6))
    for other in (own.per_class_map50["bee"] - 2e-6, None):
        changed = replace(own, per_class_map50={**own.per_class_map50, "bee": other})
        with pytest.raises(UserError, match="per_class_map50 of bee is"):
            check_agreement(published, changed)
    check_agreement(published, replace(own, map75=own.map75 + 5e-7))
