"""Lines of YOLO's label files, of detection and of other tasks."""

import pytest

from ssd.prepare.checks import check_annotation
from ssd.prepare.readers.yolo_labels import looks_like_labels, parse_labels

NAMES = ["cat", "dog"]


def test_boxes_are_shares_of_the_image() -> None:
    annotation = parse_labels("1 0.5 0.5 0.25 0.2\n\n0 0.5 0.5 1 1\n", NAMES).annotation
    dog, cat = annotation.objects
    assert annotation.normalised
    assert (dog.name, dog.written, dog.box) == ("dog", (0.5, 0.5, 0.25, 0.2), (0.375, 0.4, 0.625, 0.6))
    assert (cat.name, cat.box) == ("cat", (0, 0, 1, 1))


def test_six_digits_of_a_box_at_the_edge_do_not_reach_over_it() -> None:
    annotation = parse_labels("0 0.666667 0.5 0.666667 1", NAMES).annotation
    (found,), problems = check_annotation(annotation, "a.txt", (30, 40), NAMES)
    assert (found.box, problems) == ((13.33, 0, 40, 30), [])


@pytest.mark.parametrize(
    ("line", "box", "kind"),
    [
        ("0 0.1 0.2 0.5 0.2 0.3 0.6", (0.1, 0.2, 0.5, 0.6), "polygon"),
        ("0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6", (0.1, 0.2, 0.5, 0.6), "polygon"),
        ("0 0.1 0.2 0.5 0.2 0.3 0.6 0.9", (0.1, 0.2, 0.5, 0.6), "polygon"),
        ("0 0.5 0.5 0.5 0.5 0.87", (0.25, 0.25, 0.75, 0.75), "confidence"),
        ("0.0 0.5 0.5 0.5 0.5", (0.25, 0.25, 0.75, 0.75), None),
    ],
)
def test_other_tasks_lines_give_boxes(line: str, box: tuple[float, ...], kind: str | None) -> None:
    labels = parse_labels(line, NAMES)
    assert labels.annotation.objects[0].box == pytest.approx(box)
    assert (labels.kinds[kind] == 1) if kind else not labels.kinds


def test_of_a_pose_the_box_is_taken_though_its_keypoints_are_in_pixels() -> None:
    labels = parse_labels("0 0.5 0.5 0.5 0.5 12 13 2", NAMES, pose=True)
    assert labels.annotation.objects[0].box == (0.25, 0.25, 0.75, 0.75)
    assert labels.kinds == {"pose": 1}


@pytest.mark.parametrize(
    ("line", "flaw"),
    [
        ("0 0.5 0.5", "has 3 columns, not class cx cy w h"),
        ("2 0.5 0.5 0.1 0.1", "class 2 is none of 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 is none of 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is none of 0 to 1"),
        ("dog 0.5 0.5 0.1 0.1", "class dog is none of 0 to 1"),
        ("9" * 5000 + " 0.5 0.5 0.1 0.1", "class 9999999999 is none of 0 to 1"),
        ("nan 0.5 0.5 0.1 0.1", "class nan is none of 0 to 1"),
        ("0 0.5 0.5 x 0.1", "0.5 0.5 x 0.1: not finite numbers"),
        ("0 0.5 0.5 inf 0.1", "0.5 0.5 inf 0.1: not finite numbers"),
        ("0 10 20 30 40", "10 20 30 40: not normalised to [0, 1]; pixels?"),
        ("0 0.5 0.5 1.02 0.1", "0.5 0.5 1.02 0.1: not normalised to [0, 1]; pixels?"),
    ],
)
def test_lines_that_cannot_be_read_are_flaws(line: str, flaw: str) -> None:
    annotation = parse_labels(f"0 0.5 0.5 0.1 0.1\n{line}", NAMES).annotation
    assert len(annotation.objects) == 1
    assert annotation.flaws == (f"line 2: {flaw}",)
    assert annotation.num_objects == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0 0.5 0.5 0.1 0.1", True), ("\n", True), ("0 a b c d", False), ("a cat", False), ("1 2 3", False)],
)
def test_a_label_file_is_known_by_its_first_line(text: str, expected: bool) -> None:
    assert looks_like_labels(text) is expected
