"""COCO average precision, against pycocotools and torchmetrics."""

from collections.abc import Callable

import pytest
import torch
from detected_images import NAMES, crowded_images, one_image, random_images
from torchmetrics.detection import MeanAveragePrecision

from benchmarks.evaluation import coco_dataset, coco_results, pycocotools_result
from ssd.metrics.coco import IOU_THRESHOLDS, RECALL_POINTS, CocoResult, evaluate_coco
from ssd.structures import Detections, Objects


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
