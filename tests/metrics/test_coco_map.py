"""COCO average precision, against pycocotools and torchmetrics."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from benchmarks.evaluation import coco_dataset, coco_results, pycocotools_result
from ssd.metrics.coco import IOU_THRESHOLDS, RECALL_POINTS, CocoResult, evaluate_coco
from ssd.structures import Detections, Objects

NAMES = ["ant", "bee", "cat", "dog"]


def random_images(seed: int, num_images: int = 25) -> tuple[list[Detections], list[Objects]]:
    """Whole-pixel boxes and coarse scores, so that ties are common; no object of the last class."""
    random = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(num_images):
        num_objects, num_detections = int(random.integers(0, 6)), int(random.integers(0, 15))
        corners = random.integers(0, 60, (num_objects, 2))
        boxes = np.concatenate([corners, corners + random.integers(5, 50, (num_objects, 2))], axis=1)
        labels = random.integers(1, 4, num_objects)
        truth.append(
            Objects(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                torch.tensor(labels),
                torch.tensor(random.random(num_objects) < 0.25),
            )
        )
        corners = random.integers(0, 60, (num_detections, 2))
        guesses = np.concatenate([corners, corners + random.integers(5, 50, (num_detections, 2))], axis=1)
        guessed = random.integers(1, 5, num_detections)
        if num_objects:
            near = random.random(num_detections) < 0.7
            copied = random.integers(0, num_objects, num_detections)
            guesses[near] = boxes[copied][near] + random.integers(-2, 3, (near.sum(), 4))
            guessed[near] = labels[copied][near]
        scores = -np.sort(-random.integers(1, 10, num_detections) / 16)
        found.append(
            Detections(
                torch.tensor(guesses, dtype=torch.float32).reshape(-1, 4),
                torch.tensor(scores, dtype=torch.float32),
                torch.tensor(guessed),
            )
        )
    return found, truth


def crowded_images(seed: int) -> tuple[list[Detections], list[Objects]]:
    """Many detections, by only four scores, that are rivals for many objects, some of them ignored."""
    random = np.random.default_rng(seed)

    def boxes(num_boxes: int) -> torch.Tensor:
        corners = random.integers(0, 8, (num_boxes, 2))
        return torch.tensor(np.hstack([corners, corners + random.integers(6, 16, (num_boxes, 2))])).float()

    found, truth = [], []
    for _ in range(4):
        scores = torch.tensor(-np.sort(-random.integers(1, 5, 130) / 4)).float()
        found.append(Detections(boxes(130), scores, torch.tensor(random.integers(1, 3, 130))))
        ignored = torch.tensor(random.random(40) < 0.2)
        truth.append(Objects(boxes(40), torch.tensor(random.integers(1, 3, 40)), ignored))
    return found, truth


def one_image(
    boxes: list[list[float]], truth: list[list[float]], ignored: list[bool] | None = None
) -> tuple[list[Detections], list[Objects]]:
    """Detections of class 1 with falling scores, and objects of class 1."""
    num_boxes = len(boxes)
    return (
        [
            Detections(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                torch.linspace(0.9, 0.1, num_boxes),
                torch.ones(num_boxes, dtype=torch.int64),
            )
        ],
        [
            Objects(
                torch.tensor(truth, dtype=torch.float32).reshape(-1, 4),
                torch.ones(len(truth), dtype=torch.int64),
                torch.tensor(ignored or [False] * len(truth), dtype=torch.bool),
            )
        ],
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("images", [random_images, crowded_images])
def test_figures_are_those_of_pycocotools_to_the_last_bit(
    images: Callable[[int], tuple[list[Detections], list[Objects]]], seed: int
) -> None:
    found, truth = images(seed)
    got = evaluate_coco(found, truth, NAMES)
    assert got == pycocotools_result(coco_dataset(truth, NAMES), coco_results(found))
    assert got.per_class_map["dog"] is None
    assert got.map is not None and 0 < got.map < 1


def test_agrees_with_torchmetrics() -> None:
    found, truth = random_images(7)
    metric = MeanAveragePrecision(
        iou_thresholds=IOU_THRESHOLDS.tolist(), rec_thresholds=RECALL_POINTS.tolist(), class_metrics=True
    )
    metric.update(
        [{"boxes": d.boxes, "scores": d.scores, "labels": d.labels} for d in found],
        [{"boxes": o.boxes, "labels": o.labels, "iscrowd": o.ignored.long()} for o in truth],
    )
    expected = metric.compute()
    got = evaluate_coco(found, truth, NAMES)
    assert (got.map, got.map50, got.map75) == pytest.approx(
        tuple(float(expected[key]) for key in ("map", "map_50", "map_75")), abs=1e-6
    )
    assert [got.per_class_map[name] for name in NAMES[:3]] == pytest.approx(
        expected["map_per_class"][:3].tolist(), abs=1e-6
    )


def test_of_rivals_for_an_object_the_better_one_gets_it_and_the_other_takes_its_next_best() -> None:
    """The second detection wants the same object; what it falls back on, the third then goes without."""
    first, second = [0.0, 0, 10, 10], [0.0, 0, 10, 16]
    found, truth = one_image([first, first, second], [first, second])
    result = evaluate_coco(found, truth, ["ant"])
    # At 0.60 (IoU 0.625) two rights come before a wrong; above it the second is wrong and the third right.
    at_060, above = 1.0, (51 * 1.0 + 50 * 2 / 3) / 101
    assert result.map50 == at_060
    assert result.map75 == pytest.approx(above)
    assert result.map == pytest.approx((3 * at_060 + 7 * above) / 10)


def test_an_iou_on_a_threshold_reaches_it() -> None:
    """IoU 0.6 counts at 0.50, 0.55 and 0.60: three of ten."""
    result = evaluate_coco(*one_image([[0, 0, 10, 6]], [[0, 0, 10, 10]]), ["ant"])
    assert result.map50 == pytest.approx(1.0)
    assert result.map75 == 0.0
    assert result.map == pytest.approx(0.3)
    assert result.per_class_map["ant"] == pytest.approx(0.3)


def test_any_number_of_detections_inside_an_ignored_object_do_not_count() -> None:
    """What matters is how much of the detection is inside it, however little of it that is."""
    ignored, object_ = [50.0, 50, 90, 90], [0.0, 0, 10, 10]
    part, beside = [50.0, 50, 55, 55], [48.0, 50, 52, 54]
    found, truth = one_image([ignored, part, part, object_], [ignored, object_], [True, False])
    assert evaluate_coco(found, truth, ["ant"]).map == pytest.approx(1.0)
    # Half of it is inside: not counted at 0.50, wrong at the nine thresholds above.
    found, truth = one_image([beside, object_], [ignored, object_], [True, False])
    assert evaluate_coco(found, truth, ["ant"]).map == pytest.approx((1 + 9 / 2) / 10)


def test_only_the_best_hundred_of_a_class_count() -> None:
    misses = [[100.0, 100, 110, 110]] * 120
    found, truth = one_image([*misses, [0, 0, 10, 10]], [[0, 0, 10, 10]])
    # The hit comes 121st of its class; then 121st over all classes, but first of its own.
    others = [Detections(found[0].boxes, found[0].scores, torch.tensor([2] * 120 + [1]))]
    assert evaluate_coco(found, truth, NAMES).map == 0.0
    assert evaluate_coco(others, truth, NAMES).map == pytest.approx(1.0)


def test_without_detections_the_score_is_zero() -> None:
    result = evaluate_coco(*one_image([], [[0, 0, 10, 10]]), ["ant", "bee"])
    assert (result.map, result.map50, result.map75) == (0.0, 0.0, 0.0)
    assert result.per_class_map == result.per_class_map50 == {"ant": 0.0, "bee": None}


@pytest.mark.parametrize("truth", [[], [[0.0, 0, 10, 10]]])
def test_without_counted_objects_there_is_no_score(truth: list[list[float]]) -> None:
    found, ignored = one_image([[0, 0, 10, 10]], truth, [True] * len(truth))
    nothing = CocoResult(None, None, None, {"ant": None}, {"ant": None})
    assert evaluate_coco(found, ignored, ["ant"]) == nothing
    assert evaluate_coco([], [], ["ant"]) == nothing


def test_wrong_input_is_refused() -> None:
    found, truth = one_image([[0, 0, 10, 10]], [[0, 0, 10, 10]])
    with pytest.raises(ValueError, match="1 images with detections, but 0 with objects"):
        evaluate_coco(found, [], ["ant"])
    with pytest.raises(ValueError, match=r"label 1 is outside 1\.\.0"):
        evaluate_coco(found, truth, [])
