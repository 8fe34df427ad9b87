"""What counts as the same detections: rounding is excused, nothing else is."""

from dataclasses import replace

import pytest
import torch
from small_detector import SETTINGS, build_model, scenes
from torch import Tensor

from ssd.detector import Detector, scale_boxes
from ssd.export.match_detections import Agreement, Reference, compare_detections
from ssd.postprocess import PostProcessSettings
from ssd.structures import Detections

TOLERANCE = 0.001
FAR_LEFT, LEFT, RIGHT = (0.0, 0.0, 20.0, 20.0), (30.0, 0.0, 50.0, 20.0), (60.0, 0.0, 80.0, 20.0)
NEAR_LEFT = (32.0, 0.0, 52.0, 20.0)
"""Overlaps LEFT with an IoU of 18 / 22 = 0.82."""

Row = tuple[tuple[float, float, float, float], float, int]
"""Box, score, label."""


def detections(rows: list[Row]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        torch.tensor(boxes).view(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64)
    )


def reference(found: list[Row], suppressed: list[Row] | None = None) -> Reference:
    """Of an image of 100 pixels; candidates before NMS are the detections and those suppressed."""
    candidates = detections([*found, *(suppressed or [])])
    scores = torch.zeros(len(candidates.labels), 2)
    scores[torch.arange(len(scores)), candidates.labels - 1] = candidates.scores
    return Reference(detections(found), candidates.boxes[:, None], scores, 100)


def compare(expected: Reference, other: list[Row], **settings: float) -> Agreement:
    thresholds = replace(PostProcessSettings(score_threshold=0.1, nms_iou=0.45), **settings)  # type: ignore[arg-type]
    return compare_detections(expected, detections(other), thresholds, TOLERANCE)


def test_equal_detections_agree() -> None:
    rows: list[Row] = [(LEFT, 0.9, 1), (RIGHT, 0.8, 2)]
    assert compare(reference(rows), rows) == Agreement(0, 0, 2, 0, "")
    assert compare(reference([]), []) == Agreement(0, 0, 0, 0, "")


def test_differences_are_those_of_partners_whatever_the_order() -> None:
    moved = (30.05, 0.0, 50.0, 20.0)
    found = compare(reference([(LEFT, 0.9, 1), (RIGHT, 0.8999, 1)]), [(RIGHT, 0.9001, 1), (moved, 0.9, 1)])
    assert found.problem == ""
    assert found.num_matched == 2
    assert found.box_difference == pytest.approx(0.0005, rel=1e-3)
    assert found.score_difference == pytest.approx(0.0002, rel=1e-2)


@pytest.mark.parametrize(
    "other",
    [
        ((30.2, 0.0, 50.0, 20.0), 0.9, 1),
        (LEFT, 0.902, 1),
        (LEFT, 0.9, 2),
        (LEFT, float("nan"), 1),
        ((float("nan"),) * 4, 0.9, 1),
    ],
    ids=["box", "score", "label", "nan score", "nan box"],
)
def test_a_difference_above_the_tolerance_is_a_problem(other: Row) -> None:
    assert compare(reference([(LEFT, 0.9, 1)]), [other]).problem != ""


def test_missing_and_surplus_detections_are_problems() -> None:
    one: list[Row] = [(LEFT, 0.9, 1)]
    two: list[Row] = [*one, (RIGHT, 0.5, 1)]
    assert "misses label 1 at score 0.5" in compare(reference(two), one).problem
    assert "surplus label 1 at score 0.5" in compare(reference(one, [(RIGHT, 0.5, 1)]), two).problem
    assert "misses" in compare(reference(one), []).problem
    assert "surplus" in compare(reference([]), one).problem


def test_a_score_next_to_the_threshold_may_come_and_go() -> None:
    one: list[Row] = [(LEFT, 0.9, 1)]
    two: list[Row] = [*one, (RIGHT, 0.1005, 1)]
    assert compare(reference(two), one).problem == ""
    assert compare(reference(two), one).num_borderline == 1
    assert compare(reference(one, [(RIGHT, 0.1, 1)]), two).problem == ""
    assert compare(reference([*one, (RIGHT, 0.102, 1)]), one).problem != ""


def test_a_score_next_to_the_last_of_k_may_be_another() -> None:
    first: list[Row] = [(LEFT, 0.9, 1), (RIGHT, 0.5, 1)]
    second: list[Row] = [(LEFT, 0.9, 1), (FAR_LEFT, 0.4999, 1)]
    assert compare(reference(first, second[1:]), second, max_detections=2).problem == ""
    assert "misses" in compare(reference(first, second[1:]), second, max_detections=3).problem
    worse: list[Row] = [(LEFT, 0.9, 1), (FAR_LEFT, 0.49, 1)]
    assert "misses" in compare(reference(first, worse[1:]), worse, max_detections=2).problem


def test_a_score_next_to_the_last_candidate_of_its_class_may_come_and_go() -> None:
    one: list[Row] = [(LEFT, 0.9, 1)]
    two: list[Row] = [*one, (RIGHT, 0.5, 1)]
    expected = reference(two, [(FAR_LEFT, 0.4999, 1)])
    assert compare(expected, one, max_per_class=2).problem == ""
    assert "misses" in compare(expected, one, max_per_class=3).problem


def test_of_two_nearly_equal_scores_either_may_suppress_the_other() -> None:
    found = compare(reference([(LEFT, 0.9, 1)], [(NEAR_LEFT, 0.8999, 1)]), [(NEAR_LEFT, 0.9001, 1)])
    assert found.problem == ""
    assert (found.num_matched, found.num_borderline) == (0, 2)
    unequal = reference([(LEFT, 0.9, 1)], [(NEAR_LEFT, 0.8, 1)])
    assert "misses" in compare(unequal, [(NEAR_LEFT, 0.8, 1)]).problem


def test_a_suppressor_must_be_a_box_that_the_network_proposes() -> None:
    assert "surplus" in compare(reference([(LEFT, 0.9, 1)]), [(NEAR_LEFT, 0.9, 1)]).problem


def test_a_chain_of_suppressions_leads_back_to_rounding() -> None:
    # a and b tie; only b overlaps c, so c depends on which of the two is first.
    a, b, c = (0.0, 0.0, 20.0, 20.0), (6.0, 0.0, 26.0, 20.0), (12.0, 0.0, 32.0, 20.0)
    expected = reference([(a, 0.9, 1), (c, 0.5, 1)], [(b, 0.8999, 1)])
    assert compare(expected, [(b, 0.9, 1)]).problem == ""
    assert "misses label 1 at score 0.5" in compare(expected, [(a, 0.9, 1)]).problem


def test_an_overlap_next_to_the_limit_may_come_and_go() -> None:
    one: list[Row] = [(LEFT, 0.9, 1)]
    two: list[Row] = [*one, (NEAR_LEFT, 0.5, 1)]
    for nms_iou, excused in ((0.818, True), (0.8185, True), (0.81, False), (0.83, False)):
        missing = compare(reference(two), one, nms_iou=nms_iou)
        surplus = compare(reference(one, two[1:]), two, nms_iou=nms_iou)
        assert (missing.problem == "") == (surplus.problem == "") == excused


def test_a_problem_names_the_nearest_of_its_label() -> None:
    other: list[Row] = [((31.0, 0.0, 50.0, 20.0), 0.85, 1), (RIGHT, 0.9, 1)]
    problem = compare(reference([(LEFT, 0.9, 1)]), other).problem
    assert "differs by 0.05 in score and by 0.01 of the longer image side in box" in problem
    assert "no detection of that label" in compare(reference([(LEFT, 0.9, 1)]), [(LEFT, 0.9, 2)]).problem


@torch.inference_mode()
def of_detector(detector: Detector, images: Tensor) -> tuple[Reference, Detections]:
    """What a detector says of one image [1, 3, H, W], as either side of a comparison."""
    height, width = images.shape[2:]
    boxes, scores, labels, num_detections = (x[0] for x in detector(images))
    n = int(num_detections)
    found = Detections(boxes[:n], scores[:n], labels[:n])
    candidates = detector.postprocessor.candidates(*detector.raw_outputs(images))
    candidate_boxes = scale_boxes(candidates.boxes()[0], height, width)
    return Reference(found, candidate_boxes, candidates.scores[0], max(height, width)), found


@pytest.mark.parametrize(
    "wrong",
    [
        {"score_threshold": 0.6},
        {"score_threshold": 0.4},
        {"nms_iou": 0.3},
        {"nms_iou": 0.6},
        {"max_per_class": 5},
        {"max_detections": 10},
    ],
    ids=str,
)
def test_another_setting_is_a_problem(detector: Detector, wrong: dict[str, float]) -> None:
    settings = replace(SETTINGS, max_detections=200)
    right = Detector(detector.model, settings)
    other = Detector(detector.model, replace(settings, **wrong))  # type: ignore[arg-type]
    images = scenes(1, 90, 120)
    expected, same = of_detector(right, images)
    assert compare_detections(expected, same, settings, TOLERANCE).problem == ""
    assert compare_detections(expected, of_detector(other, images)[1], settings, TOLERANCE).problem != ""


def test_other_weights_are_a_problem(detector: Detector) -> None:
    images = scenes(1, 90, 120)
    expected, _ = of_detector(detector, images)
    similar = build_model()
    similar.heads.conf[0].bias.data[1::4] += 0.05
    _, other = of_detector(Detector(similar, SETTINGS), images)
    assert compare_detections(expected, other, SETTINGS, TOLERANCE).problem != ""
