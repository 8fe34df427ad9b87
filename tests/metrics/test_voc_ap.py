"""VOC average precision and F1, against a literal loop over the development kit's algorithm and by hand."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.metrics.voc import evaluate_voc, mean_precision, sampled_curve
from ssd.structures import Detections, Objects

Box = tuple[float, float, float, float]


def detections(*rows: tuple[Box, float, int]) -> Detections:
    """Detections from rows of (box, score, label), which come best first."""
    return Detections(
        torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[1] for row in rows], dtype=torch.float32),
        torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def objects(*rows: tuple[Box, int, bool]) -> Objects:
    """Objects from rows of (box, label, ignored)."""
    return Objects(
        torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[1] for row in rows], dtype=torch.int64),
        torch.tensor([row[2] for row in rows], dtype=torch.bool),
    )


# The reference: one detection at a time, in the kit's coordinates (from 1, last pixel inside) and exact
# fractions. It shares no code with the evaluator.


def kit_box(box: list[float]) -> list[Fraction]:
    x1, y1, x2, y2 = map(Fraction, box)
    return [x1 + 1, y1 + 1, x2, y2]


def kit_iou(a: list[Fraction], b: list[Fraction]) -> Fraction:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return Fraction(0)
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return width * height / (area_a + area_b - width * height)


def kit_ap(
    found: list[Detections], truth: list[Objects], label: int, iou_threshold: float
) -> tuple[float | None, float | None, float | None]:
    """(11-point AP, area AP, best F1) of one class; None without objects."""
    boxes, ignored, detected, num_objects = [], [], [], 0
    for image in truth:
        rows = [row for row in range(len(image.labels)) if int(image.labels[row]) == label]
        boxes.append([kit_box(image.boxes[row].tolist()) for row in rows])
        ignored.append([bool(image.ignored[row]) for row in rows])
        detected.append([False] * len(rows))
        num_objects += ignored[-1].count(False)
    if num_objects == 0:
        return None, None, None

    walk = []
    for index, guess in enumerate(found):
        walk += [
            (float(guess.scores[row]), index, kit_box(guess.boxes[row].tolist()))
            for row in range(len(guess.labels))
            if int(guess.labels[row]) == label
        ]
    walk.sort(key=lambda entry: -entry[0])

    num_true = num_false = 0
    recalls, precisions = [], []
    for _, index, box in walk:
        largest, best = Fraction(0), -1
        for candidate, other in enumerate(boxes[index]):
            overlap = kit_iou(box, other)
            if overlap > largest:
                largest, best = overlap, candidate
        if best >= 0 and largest >= Fraction(iou_threshold):
            if ignored[index][best]:
                continue
            if detected[index][best]:
                num_false += 1
            else:
                detected[index][best] = True
                num_true += 1
        else:
            num_false += 1
        recalls.append(Fraction(num_true, num_objects))
        precisions.append(Fraction(num_true, num_true + num_false))

    points = []
    for tenth in range(11):
        reached = [p for r, p in zip(recalls, precisions, strict=True) if r >= Fraction(tenth, 10)]
        points.append(max(reached, default=Fraction(0)))

    best_f1 = Fraction(0)
    for recall, precision in zip(recalls, precisions, strict=True):
        if recall > 0:
            best_f1 = max(best_f1, 2 / (1 / precision + 1 / recall))  # the harmonic mean

    recalls = [Fraction(0), *recalls, Fraction(1)]
    precisions = [Fraction(0), *precisions, Fraction(0)]
    for row in range(len(precisions) - 2, -1, -1):
        precisions[row] = max(precisions[row], precisions[row + 1])
    area = Fraction(0)
    for row in range(1, len(recalls)):
        area += (recalls[row] - recalls[row - 1]) * precisions[row]
    return float(sum(points) / 11), float(area), float(best_f1)


def assert_like_kit(
    found: list[Detections], truth: list[Objects], num_classes: int, iou_threshold: float = 0.5
) -> None:
    result = evaluate_voc(found, truth, num_classes, iou_threshold)
    expected = [kit_ap(found, truth, label, iou_threshold) for label in range(1, num_classes + 1)]
    for got, figures in zip(result.classes, expected, strict=True):
        for value, figure in zip((got.ap_11point, got.ap_area, got.f1), figures, strict=True):
            assert value == (None if figure is None else pytest.approx(figure, abs=1e-12))
    scored = [figures for figures in expected if figures[0] is not None]
    for column, got_mean in enumerate((result.map_11point, result.map_area, result.mean_f1)):
        mean = np.mean([figures[column] for figures in scored]) if scored else None
        assert got_mean == (None if mean is None else pytest.approx(mean, abs=1e-12))


# Few places, sizes and scores, so that equal scores, equal IoUs, duplicates and IoUs on the threshold
# are common.
corner = st.sampled_from([0, 2])
side = st.sampled_from([4, 5, 10])
box = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), corner, corner, side, side)
label = st.integers(1, 2)
image_detections = st.lists(st.tuples(box, st.sampled_from([0.9, 0.5, 0.1]), label), max_size=8).map(
    lambda rows: detections(*sorted(rows, key=lambda row: -row[1]))
)
image_objects = st.lists(st.tuples(box, label, st.booleans()), max_size=4).map(lambda rows: objects(*rows))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(image_detections, image_objects), max_size=4), st.sampled_from([0.25, 0.5, 1.0]))
def test_agrees_with_the_kit_where_scores_and_overlaps_are_equal(
    images: list[tuple[Detections, Objects]], iou_threshold: float
) -> None:
    assert_like_kit([d for d, _ in images], [o for _, o in images], 3, iou_threshold)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_kit_on_many_jittered_boxes(seed: int) -> None:
    random = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(40):
        num_objects = int(random.integers(0, 7))
        # Quarters of a pixel are exact in float32, so the kit's added 1 rounds nothing.
        corners = random.integers(0, 400, (num_objects, 2)) / 4
        sides = random.integers(20, 200, (num_objects, 2)) / 4
        boxes = np.concatenate([corners, corners + sides], axis=1)
        labels = random.integers(1, 6, num_objects)
        ignored = random.random(num_objects) < 0.2
        truth.append(objects(*zip(boxes.tolist(), labels.tolist(), ignored, strict=True)))
        copies = np.repeat(np.arange(num_objects), random.integers(0, 6, num_objects))
        jittered = boxes[copies] + random.integers(-20, 21, (len(copies), 4)) / 4
        scores = -np.sort(-random.integers(1, 30, len(copies)) / 32)
        guessed = np.where(random.random(len(copies)) < 0.8, labels[copies], random.integers(1, 6))
        found.append(detections(*zip(jittered.tolist(), scores.tolist(), guessed.tolist(), strict=True)))
    assert_like_kit(found, truth, 5)


UNIT: Box = (0, 0, 10, 10)
HALF: Box = (0, 0, 10, 5)  # IoU with UNIT: 1/2
FAR: Box = (50, 50, 60, 60)


def test_two_hits_and_a_miss_by_hand() -> None:
    """Verdicts hit, miss, hit on three objects: recall 1/3, 1/3, 2/3 and precision 1, 1/2, 2/3."""
    found = [detections((UNIT, 0.9, 1), ((100, 0, 110, 10), 0.8, 1), (FAR, 0.7, 1))]
    truth = [objects((UNIT, 1, False), (FAR, 1, False), ((200, 200, 210, 210), 1, False))]
    (result,) = evaluate_voc(found, truth, 1).classes
    assert result.num_objects == 3
    np.testing.assert_allclose(result.recall, [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(result.precision, [1, 1 / 2, 2 / 3])
    # Recall 0, .1, .2, .3 at precision 1; .4, .5, .6 at 2/3; the rest is not reached.
    assert result.ap_11point == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert result.ap_area == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    # F1 after each: 2/4, 2/5, 4/6.
    assert result.f1 == pytest.approx(2 / 3)


def test_f1_at_a_stated_score_is_that_of_the_detections_from_it_on() -> None:
    """Class 1: one of two objects, then it again; class 2: a hit by a low score; class 3: no object."""
    found = [detections((HALF, 0.75, 1), (UNIT, 0.5, 1), (UNIT, 0.25, 2), (HALF, 0.9, 3))]
    truth = [objects((UNIT, 1, False), ((80, 0, 90, 9), 1, False), (UNIT, 2, False))]
    for score, expected in (
        (0.5, [0.5, 0]),
        (0.51, [2 / 3, 0]),
        (0.8, [0, 0]),
        (0.2, [0.5, 1]),
        (0.0, [2 / 3, 1]),
    ):
        result = evaluate_voc(found, truth, 3, f1_score=score)
        assert [c.f1 for c in result.classes] == [*map(pytest.approx, expected), None]
        assert result.mean_f1 == pytest.approx(sum(expected) / 2)


def test_the_best_f1_is_that_of_the_best_place_on_the_curve_and_the_mean_is_over_classes() -> None:
    """Class 1: a hit and three misses, two objects: F1 2/3, 2/4, 2/5, 2/6. Class 2: missed. Class 3: none."""
    found = [detections((UNIT, 0.9, 1), *[(FAR, 0.5, 1)] * 3)]
    result = evaluate_voc(found, [objects((UNIT, 1, False), (HALF, 1, False), (UNIT, 2, False))], 3)
    assert [c.f1 for c in result.classes] == [pytest.approx(2 / 3), 0.0, None]
    assert result.mean_f1 == pytest.approx(1 / 3)


def test_iou_equal_to_the_threshold_is_a_hit() -> None:
    assert evaluate_voc([detections((HALF, 0.9, 1))], [objects((UNIT, 1, False))], 1, 0.5).map_area == 1.0
    assert evaluate_voc([detections((HALF, 0.9, 1))], [objects((UNIT, 1, False))], 1, 0.51).map_area == 0.0


def test_a_second_detection_of_an_object_is_false_also_beside_a_free_object() -> None:
    shifted = (0, 0, 10, 9)
    found = [detections((UNIT, 0.9, 1), (UNIT, 0.8, 1))]
    truth = [objects((UNIT, 1, False), (shifted, 1, False))]
    (result,) = evaluate_voc(found, truth, 1).classes
    np.testing.assert_array_equal(result.precision, [1, 0.5])
    np.testing.assert_array_equal(result.recall, [0.5, 0.5])


def test_detections_of_an_ignored_object_do_not_count() -> None:
    found = [detections((FAR, 0.9, 1), (FAR, 0.8, 1), (UNIT, 0.7, 1))]
    truth = [objects((UNIT, 1, False), (FAR, 1, True))]
    (result,) = evaluate_voc(found, truth, 1).classes
    assert (result.num_objects, result.precision.tolist(), result.ap_area) == (1, [1.0], 1.0)


def test_the_first_of_equally_overlapping_objects_is_taken() -> None:
    found = [detections((UNIT, 0.9, 1))]
    counted, ignored = (UNIT, 1, False), (UNIT, 1, True)
    assert evaluate_voc(found, [objects(counted, ignored)], 1).map_area == 1.0
    assert evaluate_voc(found, [objects(ignored, counted)], 1).map_area == 0.0


def test_too_little_overlap_with_an_ignored_object_is_false() -> None:
    found = [detections(((0, 0, 10, 4), 0.9, 1))]
    truth = [objects((UNIT, 1, True), (FAR, 1, False))]
    assert evaluate_voc(found, truth, 1).classes[0].precision.tolist() == [0.0]


def test_objects_of_other_classes_and_images_do_not_match() -> None:
    found = [detections((UNIT, 0.9, 1)), detections((UNIT, 0.9, 2))]
    truth = [objects((UNIT, 2, False)), objects((UNIT, 1, False))]
    assert evaluate_voc(found, truth, 2).map_area == 0.0


def public_ap(recall: np.ndarray, precision: np.ndarray) -> float:
    """Eleven points as public Python evaluators compute them."""
    total = 0.0
    for point in np.arange(0.0, 1.1, 0.1):
        total += max(precision[recall >= point], default=0.0)
    return total / 11


@pytest.mark.parametrize(("num_found", "missed"), [(2, 0), (3, 1), (6, 1), (7, 1), (10, 0)])
def test_a_recall_of_tenths_reaches_its_point_but_misses_that_of_public_evaluators(
    num_found: int, missed: int
) -> None:
    boxes: list[Box] = [(20 * i, 0, 20 * i + 10, 10) for i in range(10)]
    found = [detections(*[(box, 0.9, 1) for box in boxes[:num_found]])]
    truth = [objects(*[(box, 1, False) for box in boxes])]
    result = evaluate_voc(found, truth, 1)
    assert result.map_11point == pytest.approx((num_found + 1) / 11)
    assert result.map_11point_arange == pytest.approx((num_found + 1 - missed) / 11)
    (curve,) = result.classes
    assert curve.ap_11point_arange == pytest.approx(public_ap(curve.recall, curve.precision))


def test_equal_scores_are_taken_in_the_order_of_the_images() -> None:
    hit, miss = detections((UNIT, 0.5, 1)), detections((FAR, 0.5, 1))
    truth = [objects((UNIT, 1, False)), objects((UNIT, 1, False))]
    assert evaluate_voc([hit, miss], truth, 1).classes[0].precision.tolist() == [1.0, 0.5]
    assert evaluate_voc([miss, hit], truth, 1).classes[0].precision.tolist() == [0.0, 0.5]


def test_a_class_without_counted_objects_has_no_ap_and_no_weight() -> None:
    found = [detections((UNIT, 0.9, 1), (UNIT, 0.9, 2), (UNIT, 0.9, 3))]
    truth = [objects((UNIT, 1, False), (UNIT, 2, True))]
    result = evaluate_voc(found, truth, 3)
    assert [c.ap_area for c in result.classes] == [1.0, None, None]
    assert [c.ap_11point for c in result.classes] == [1.0, None, None]
    assert (result.map_area, result.map_11point) == (1.0, 1.0)


def test_without_detections_every_class_with_objects_scores_zero() -> None:
    result = evaluate_voc([detections()], [objects((UNIT, 1, False))], 2)
    assert [c.ap_area for c in result.classes] == [0.0, None]
    assert (result.map_area, result.map_11point) == (0.0, 0.0)


@pytest.mark.parametrize("found", [[], [detections()], [detections((UNIT, 0.9, 1))]])
def test_without_objects_there_is_no_score(found: list[Detections]) -> None:
    result = evaluate_voc(found, [objects()] * len(found), 2)
    assert (result.map_area, result.map_11point, result.mean_f1) == (None, None, None)


def test_a_sampled_curve_is_the_best_precision_from_there_on_as_far_as_it_reaches() -> None:
    found = [detections((FAR, 0.9, 1), (UNIT, 0.8, 1))]
    (result,) = evaluate_voc(found, [objects((UNIT, 1, False), ((80, 0, 90, 9), 1, False))], 1).classes
    points = sampled_curve(result)
    assert [recall for recall, _ in points] == [k / 100 for k in range(51)]
    assert {precision for _, precision in points} == {0.5}


def test_mean_precision_is_the_mean_of_the_classes_curves() -> None:
    """Two classes with objects, of which one is found first and one half of the time; a third has none."""
    found = [detections((UNIT, 0.9, 1), (FAR, 0.8, 2), (UNIT, 0.7, 2))]
    truth = [objects((UNIT, 1, False), (UNIT, 2, False))]
    rows = mean_precision(evaluate_voc(found, truth, 3))
    assert [recall for recall, _ in rows] == [k / 100 for k in range(101)]
    assert {precision for _, precision in rows} == {0.75}


def test_without_any_object_there_is_no_curve() -> None:
    result = evaluate_voc([detections((UNIT, 0.9, 1))], [objects()], 2)
    assert mean_precision(result) == [] and sampled_curve(result.classes[0]) == []


def test_the_order_of_images_does_not_matter_where_scores_differ() -> None:
    found = [detections((UNIT, 0.9, 1)), detections((FAR, 0.8, 1)), detections((UNIT, 0.7, 2))]
    truth = [objects((HALF, 1, False)), objects((UNIT, 1, False)), objects((UNIT, 2, False))]
    forward = evaluate_voc(found, truth, 2)
    backward = evaluate_voc(found[::-1], truth[::-1], 2)
    assert forward.map_area == backward.map_area
    np.testing.assert_array_equal(forward.classes[0].precision, backward.classes[0].precision)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="1 images with detections, but 0 with objects"):
        evaluate_voc([detections()], [], 1)
    with pytest.raises(ValueError, match=r"label 3 is outside 1\.\.2"):
        evaluate_voc([detections((UNIT, 0.9, 3))], [objects()], 2)
    with pytest.raises(ValueError, match=r"label 0 is outside 1\.\.2"):
        evaluate_voc([detections()], [objects((UNIT, 0, False))], 2)
