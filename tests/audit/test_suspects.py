"""Each kind of wrong annotation is found as such, and what is right is not."""

import pytest
import torch
from detected_images import NAMES, random_images

from ssd.audit.suspects import Suspect, find_suspects
from ssd.structures import Detections, Objects

BOX = (10.0, 10.0, 50.0, 50.0)
FAR = (100.0, 100.0, 140.0, 140.0)


def objects(*items: tuple[int, tuple[float, ...]], ignored: bool = False) -> Objects:
    labels, boxes = [label for label, _ in items], [box for _, box in items]
    flags = torch.full((len(items),), ignored)
    return Objects(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), flags)


def detections(*items: tuple[float, int, tuple[float, ...]]) -> Detections:
    """Of (score, label, box), best first."""
    return Detections(
        torch.tensor([box for _, _, box in items]).reshape(-1, 4),
        torch.tensor([score for score, _, _ in items]),
        torch.tensor([label for _, label, _ in items], dtype=torch.int64),
    )


def audit(found: Detections, truth: Objects) -> list[Suspect]:
    """One image among others that are right down to the score 0.5, the operating point, and wrong below."""
    below = [(0.45, 3, (200.0, top, 220.0, top + 20)) for top in (0.0, 50.0)]
    right = objects((1, BOX), (2, FAR)), detections((0.9, 1, BOX), (0.5, 2, FAR), *below)
    images = [right, (truth, found), right, right]
    suspects = find_suspects([found for _, found in images], [truth for truth, _ in images], 3)
    assert {suspect.image for suspect in suspects} <= {1}
    return suspects


def test_what_model_and_annotation_agree_on_is_not_suspicious() -> None:
    assert audit(detections((0.9, 1, BOX)), objects((1, BOX))) == []
    assert audit(detections(), objects()) == []


def test_a_missing_object() -> None:
    (suspect,) = audit(detections((0.9, 1, BOX), (0.8, 2, FAR)), objects((1, BOX)))
    assert (suspect.kind, suspect.object, suspect.seen_box, suspect.seen_label) == ("missing", None, FAR, 2)
    assert suspect.suspicion == suspect.score == pytest.approx(0.8)


def test_a_detection_below_the_operating_point_says_nothing() -> None:
    assert audit(detections((0.9, 1, BOX), (0.4, 2, FAR)), objects((1, BOX))) == []


def test_a_wrong_class_by_how_little_the_model_believes_the_annotated_one() -> None:
    (suspect,) = audit(detections((0.9, 3, BOX), (0.1, 1, BOX)), objects((1, BOX)))
    assert (suspect.kind, suspect.object, suspect.annotated_label, suspect.seen_label) == ("class", 0, 1, 3)
    assert suspect.suspicion == pytest.approx(0.9 * (1 - 0.1))


@pytest.mark.parametrize(("right", "overlap"), [(34.0, 0.6), (20.0, 0.25)])
def test_a_sloppy_box_whether_it_still_counts_as_found_or_not(right: float, overlap: float) -> None:
    annotated = (10.0, 10.0, right, 50.0)
    (suspect,) = audit(detections((0.9, 1, BOX)), objects((1, annotated)))
    assert (suspect.kind, suspect.annotated_box, suspect.seen_box) == ("box", annotated, BOX)
    assert suspect.suspicion == pytest.approx(0.9 * (1 - overlap))


def test_a_box_that_is_good_enough_is_not_suspicious() -> None:
    assert audit(detections((0.9, 1, BOX)), objects((1, (10.0, 10.0, 42.0, 50.0)))) == []


def test_of_two_objects_in_one_place_the_one_that_fits_worse() -> None:
    shifted = (12.0, 10.0, 52.0, 50.0)
    (suspect,) = audit(detections((0.9, 1, BOX)), objects((1, shifted), (1, BOX)))
    assert (suspect.kind, suspect.object, suspect.other) == ("duplicate", 0, 1)
    assert suspect.suspicion == pytest.approx(38 / 42)


def test_a_duplicate_whose_box_is_sloppy_is_a_duplicate_only() -> None:
    """Both are confirmed, each by a detection of its own."""
    one, other = (10.0, 10.0, 50.0, 50.0), (10.0, 10.0, 42.0, 50.0)
    seen = detections((0.9, 1, one), (0.8, 1, (10.0, 10.0, 33.0, 50.0)))
    (suspect,) = audit(seen, objects((1, one), (1, other)))
    assert (suspect.kind, suspect.object, suspect.other) == ("duplicate", 1, 0)


def test_three_objects_in_one_place_are_two_duplicates() -> None:
    suspects = audit(detections((0.9, 1, BOX)), objects((1, BOX), (1, BOX), (1, BOX)))
    assert [(item.kind, item.object) for item in suspects] == [("duplicate", 1), ("duplicate", 2)]


def test_an_object_that_nothing_supports_counts_as_far_as_its_class_is_found() -> None:
    """Class 1 is found in three of four places, and 3.3 % of labels are wrong."""
    (suspect,) = audit(detections((0.3, 2, FAR)), objects((1, BOX)))
    assert (suspect.kind, suspect.object, suspect.seen_box) == ("spurious", 0, None)
    assert suspect.suspicion == pytest.approx(0.033 / (0.033 + 1 / 4))
    (weaker,) = audit(detections((0.4, 1, BOX)), objects((1, BOX)))
    assert weaker.suspicion == pytest.approx(0.6 * suspect.suspicion)


def test_ignored_objects_are_no_suspects_and_explain_what_is_seen_there() -> None:
    crowd = objects((1, (0.0, 0.0, 200.0, 200.0)), ignored=True)
    assert audit(detections((0.9, 1, BOX), (0.8, 2, FAR)), crowd) == []


@pytest.mark.parametrize("seed", range(4))
def test_each_object_and_detection_is_in_one_suspect_and_they_are_ranked(seed: int) -> None:
    found, truth = random_images(seed)
    suspects = find_suspects(found, truth, len(NAMES))
    assert {suspect.kind for suspect in suspects} >= {"missing", "box", "spurious"}
    values = [suspect.suspicion for suspect in suspects]
    assert values == sorted(values, reverse=True)
    assert min(values) >= 0
    assert max(values) <= 1
    named = [(suspect.image, suspect.object) for suspect in suspects if suspect.object is not None]
    assert len(named) == len(set(named))
    for suspect in suspects:
        if suspect.object is not None:
            image = truth[suspect.image]
            assert image.boxes[suspect.object].tolist() == list(suspect.annotated_box or ())
            assert not image.ignored[suspect.object]


def test_without_images_there_are_no_suspects() -> None:
    assert find_suspects([], [], 3) == []
