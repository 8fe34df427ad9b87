"""What is mended and what is dropped, and that each is reported."""

from dataclasses import replace

import pytest

from ssd.prepare.annotations import AnnotatedObject, Annotation, Box, Problem
from ssd.prepare.checks import CheckedObject, check_annotation, drop_leaks, mend_box
from ssd.prepare.readers.voc_xml import half_open

SIZE = (30, 40)  # height, width
NAMES = ["cat", "dog"]


def dog(written: Box, *, difficult: bool = False, crowd: bool = False) -> AnnotatedObject:
    """An object whose box is written as Pascal does: 1-based, both corners inside."""
    return AnnotatedObject("dog", written, half_open(written), difficult, crowd)


def check(
    *objects: AnnotatedObject, size: tuple[int, int] | None = SIZE
) -> tuple[list[CheckedObject], list[Problem]]:
    return check_annotation(Annotation(size, objects), "a.xml", SIZE, NAMES)


def test_a_faultless_annotation_has_no_problems() -> None:
    # The largest box there is, the smallest that is no point, and one with fractions.
    boxes: list[Box] = [(1, 1, 40, 30), (3, 3, 4, 4), (1.5, 2.25, 7.125, 8.0)]
    objects, problems = check(*(dog(box) for box in boxes))
    assert problems == []
    assert [found.box for found in objects] == [half_open(box) for box in boxes]
    assert {found.label for found in objects} == {2}


def test_labels_count_from_one_in_the_order_of_the_class_names() -> None:
    objects, _ = check(replace(dog((1, 1, 9, 9)), name="cat"), dog((1, 1, 9, 9)))
    assert [found.label for found in objects] == [1, 2]


def test_difficult_is_kept() -> None:
    objects, _ = check(dog((1, 1, 9, 9), difficult=True), dog((1, 1, 8, 9)))
    assert [found.difficult for found in objects] == [True, False]


def test_crowd_is_kept_and_a_crowd_is_not_the_same_as_an_object() -> None:
    objects, problems = check(dog((1, 1, 9, 9), crowd=True), dog((1, 1, 9, 9)))
    assert [found.crowd for found in objects] == [True, False]
    assert problems == []


@pytest.mark.parametrize("written", [(20, 5, 10, 15), (10, 15, 20, 5), (20, 15, 10, 5)])
def test_swapped_corners_are_swapped_back(written: Box) -> None:
    assert mend_box(half_open(written), SIZE) == (half_open((10, 5, 20, 15)), ["corners in the wrong order"])


@pytest.mark.parametrize("written", [(10, 5, 10, 5), (10, 5, 10, 15), (10, 5, 20, 5)])
def test_boxes_of_zero_size_are_dropped(written: Box) -> None:
    assert mend_box(half_open(written), SIZE) == (None, ["zero size"])


@pytest.mark.parametrize(
    ("written", "mended", "amount"),
    [
        ((0, 5, 20, 15), (0, 4, 20, 15), "by a pixel or less"),
        ((10, 0.5, 20, 15), (9, 0, 20, 15), "by a pixel or less"),
        ((10, 5, 41, 31), (9, 4, 40, 30), "by a pixel or less"),
        ((10, 5, 40.001, 15), (9, 4, 40, 15), "by a pixel or less"),
        ((-8, 5, 20, 15), (0, 4, 20, 15), "by 9 pixels"),
        ((-8, -8, 99, 99), (0, 0, 40, 30), "by 69 pixels"),
    ],
)
def test_boxes_over_the_edge_are_clipped(written: Box, mended: Box, amount: str) -> None:
    assert mend_box(half_open(written), SIZE) == (
        mended,
        [f"reaches over the image's edge {amount}; clipped"],
    )


@pytest.mark.parametrize("written", [(41, 5, 60, 15), (10, 31, 20, 60), (-20, 5, 0, 15), (10, -20, 20, 0)])
def test_boxes_outside_the_image_are_dropped(written: Box) -> None:
    assert mend_box(half_open(written), SIZE) == (None, ["outside the image"])


def test_a_mended_box_is_inside_the_image_and_has_an_area() -> None:
    steps = (-7.0, 0.0, 0.5, 1.0, 17.0, 30.0, 40.0, 41.0, 55.0)
    for written in ((a, b, c, d) for a in steps for b in steps for c in steps for d in steps):
        box, reasons = mend_box(half_open(written), SIZE)
        if box is None:
            assert reasons
        else:
            assert 0 <= box[0] < box[2] <= 40
            assert 0 <= box[1] < box[3] <= 30
            assert reasons or box == half_open(written)


def test_a_class_that_is_written_otherwise_is_told() -> None:
    _, problems = check(replace(dog((1, 1, 9, 9)), name="Dogs"))
    assert [problem.reason for problem in problems] == [
        "unknown class 'Dogs' (data.classes has 'dog': is it that?)"
    ]


def test_a_box_with_two_faults_has_two_problems() -> None:
    objects, problems = check(dog((50, 5, 10, 15)))
    assert [found.box for found in objects] == [(9, 4, 40, 15)]
    assert [(problem.box, problem.action) for problem in problems] == [((50, 5, 10, 15), "mended")] * 2


def test_problems_name_the_file_and_the_box_as_written() -> None:
    _, problems = check(dog((10, 5, 10, 5)), replace(dog((1, 1, 9, 9)), name="cow"), dog((0, 1, 9, 9)))
    assert problems == [
        Problem("a.xml", (10, 5, 10, 5), "zero size", "dropped", num_objects=1),
        Problem("a.xml", (1, 1, 9, 9), "unknown class 'cow'", "dropped", num_objects=1),
        Problem("a.xml", (0, 1, 9, 9), "reaches over the image's edge by a pixel or less; clipped", "mended"),
    ]


def test_a_repeated_object_counts_once() -> None:
    cat = replace(dog((1, 1, 9, 9)), name="cat")
    objects, problems = check(dog((1, 1, 9, 9)), cat, dog((1, 1, 9, 9)), dog((1, 1, 9, 10)))
    assert [(found.label, found.box[3]) for found in objects] == [(2, 9), (1, 9), (2, 10)]
    assert problems == [Problem("a.xml", (1, 1, 9, 9), "duplicate of another dog", "dropped", num_objects=1)]


def test_where_the_written_size_is_wrong_the_image_is_right() -> None:
    objects, problems = check(dog((1, 1, 40, 30)), size=(40, 30))
    assert [found.box for found in objects] == [(0, 0, 40, 30)]
    reason = "size 30x40 is written, the image is 40x30; boxes kept"
    assert problems == [Problem("a.xml", None, reason, "mended")]


def test_a_size_that_is_not_written_is_no_problem() -> None:
    assert check(dog((1, 1, 9, 9)), size=None)[1] == []


def test_objects_that_could_not_be_read_are_reported() -> None:
    annotation = Annotation(SIZE, (), ("object 1 (dog): no bndbox",))
    objects, problems = check_annotation(annotation, "a.xml", SIZE, NAMES)
    assert objects == []
    assert problems == [Problem("a.xml", None, "object 1 (dog): no bndbox", "dropped", num_objects=1)]


def test_of_two_splits_with_the_same_member_test_keeps_it_then_val() -> None:
    kept, leaks = drop_leaks({"train": "abcd", "val": "bce", "test": "cf"}, key=str)
    assert kept == {"train": ["a", "d"], "val": ["b", "e"], "test": ["c", "f"]}
    assert {(leak.split, leak.member, leak.owner) for leak in leaks} == {
        ("train", "b", "val"),
        ("train", "c", "test"),
        ("val", "c", "test"),
    }


def test_repetition_within_a_split_is_no_leak() -> None:
    kept, leaks = drop_leaks({"train": ["a", "A"], "test": ["b"]}, key=str.lower)
    assert kept == {"train": ["a", "A"], "test": ["b"]}
    assert leaks == []
