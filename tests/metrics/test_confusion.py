"""The confusion matrix and the rates at one threshold: by hand, by their sums, and beside the curves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.metrics.confusion import confusion_matrix, matrix_rows, operating_point
from ssd.metrics.voc import judge_detections, voc_result
from ssd.structures import Detections, Objects

CAT, DOG = 1, 2
HERE, NEAR, FAR = (0, 0, 10, 10), (0, 0, 10, 8), (50, 50, 60, 60)  # IoU of HERE and NEAR: 0.8
Found = tuple[tuple[float, ...], float, int]
There = tuple[tuple[float, ...], int, bool]


def detections(rows: list[Found]) -> Detections:
    rows = sorted(rows, key=lambda row: -row[1])
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return Detections(
        boxes,
        torch.tensor([row[1] for row in rows]),
        torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def objects(rows: list[There]) -> Objects:
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4)
    return Objects(
        boxes,
        torch.tensor([row[1] for row in rows], dtype=torch.int64),
        torch.tensor([row[2] for row in rows], dtype=torch.bool),
    )


@pytest.mark.parametrize(
    ("found", "there", "expected"),
    [
        pytest.param([(NEAR, 0.9, CAT)], [(HERE, CAT, False)], {(0, 0): 1}, id="found"),
        pytest.param([(NEAR, 0.9, DOG)], [(HERE, CAT, False)], {(0, 1): 1}, id="for another class"),
        pytest.param([(FAR, 0.9, CAT)], [(HERE, CAT, False)], {(2, 0): 1, (0, 2): 1}, id="elsewhere"),
        pytest.param([(NEAR, 0.4, CAT)], [(HERE, CAT, False)], {(0, 2): 1}, id="below the score"),
        pytest.param([(NEAR, 0.9, CAT)], [(HERE, CAT, True)], {}, id="of an ignored object"),
        pytest.param(
            [(HERE, 0.9, CAT), (NEAR, 0.8, CAT)], [(HERE, CAT, False)], {(0, 0): 1, (2, 0): 1}, id="twice"
        ),
        pytest.param(
            [(HERE, 0.9, DOG), (NEAR, 0.6, CAT)],
            [(HERE, CAT, False)],
            {(0, 0): 1, (2, 1): 1},
            id="its own class first, whatever overlaps more",
        ),
    ],
)
def test_each_detection_and_each_object_is_counted_once(
    found: list[Found], there: list[There], expected: dict[tuple[int, int], int]
) -> None:
    matrix = confusion_matrix(judge_detections([detections(found)], [objects(there)], 2), 2, 0.5)
    assert {tuple(cell): matrix[tuple(cell)] for cell in np.argwhere(matrix).tolist()} == expected


BOXES = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 6)] * 2).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
SCORES = st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9])  # exact ties, too
IMAGES = st.lists(
    st.tuples(
        st.lists(st.tuples(BOXES, SCORES, st.integers(1, 3)), max_size=8),
        st.lists(st.tuples(BOXES, st.integers(1, 3), st.booleans()), max_size=5),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(IMAGES, SCORES)
def test_the_sums_are_the_objects_and_the_counted_detections_and_the_diagonal_pascal_s_hits(
    images: list[tuple[list[Found], list[There]]], score: float
) -> None:
    found, truth = [detections(image[0]) for image in images], [objects(image[1]) for image in images]
    kept = [detections([row for row in image[0] if row[1] >= score]) for image in images]
    matrix = confusion_matrix(judge_detections(found, truth, 3), 3, score)
    # Pascal's curves of the detections that are kept end in the same counts.
    for label, curve in enumerate(voc_result(judge_detections(kept, truth, 3), 3).classes):
        assert matrix[label].sum() == curve.num_objects
        assert matrix[:, label].sum() == len(curve.precision)
        num_correct = curve.precision[-1] * len(curve.precision) if len(curve.precision) else 0
        assert matrix[label, label] == pytest.approx(num_correct)
    assert matrix[3, 3] == 0


@settings(max_examples=40, deadline=None)
@given(IMAGES)
def test_no_other_score_has_a_better_f1(images: list[tuple[list[Found], list[There]]]) -> None:
    judged = judge_detections([detections(i[0]) for i in images], [objects(i[1]) for i in images], 3)
    point = operating_point(judged, 3)
    for curve, rates in zip(voc_result(judged, 3, point.score).classes, point.per_class, strict=True):
        assert curve.f1 == (pytest.approx(rates.f1 or 0.0) if curve.num_objects else None)

    def f1(score: float) -> float:
        matrix = confusion_matrix(judged, 3, score)
        total = int(matrix[:, :3].sum() + matrix[:3].sum())
        return 2 * int(matrix.trace()) / total if total else 0.0

    best = max(map(f1, judged.scores.tolist()), default=0.0)
    assert (point.overall.f1 or 0.0) == pytest.approx(best) == pytest.approx(f1(point.score))


def test_without_objects_or_detections_there_are_no_rates() -> None:
    point = operating_point(judge_detections([detections([])], [objects([])], 2), 2)
    assert (point.score, point.overall.precision, point.overall.recall, point.overall.f1) == (1, *[None] * 3)


def test_the_table_names_classes_background_and_missed() -> None:
    judged = judge_detections([detections([(HERE, 0.9, CAT)])], [objects([(HERE, CAT, False)])], 1)
    assert matrix_rows(operating_point(judged, 1), ["cat"]) == [
        ["actual", "cat", "missed"],
        ["cat", "1", "0"],
        ["background", "0", "0"],
    ]
