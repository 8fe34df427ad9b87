"""Validation scores, the choice among them, and the patience with them."""

import math
from dataclasses import asdict

import pytest
import torch

from ssd.structures import Detections, Objects
from ssd.training.progress import Patience, Plateau, Scores, score, validation_scores


def test_the_chosen_score_decides() -> None:
    scores = Scores(map50=0.6, map=0.3, f1=0.9)
    assert [score(scores, name) for name in ("map50", "map", "f1")] == [0.6, 0.3, 0.9]
    assert score(scores, "mean") == pytest.approx(0.6)


def test_without_an_object_or_a_validation_there_is_no_score() -> None:
    names = ("map50", "map", "f1", "mean")
    assert [score(Scores(), name) for name in names] == [None] * 4
    assert score(Scores(map50=0.0, map=0.0, f1=0.0), "mean") == 0.0
    assert score(Scores(map50=0.5, map=0.5), "mean") is None
    nothing = Objects(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    found = Detections(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0.9]), torch.tensor([1]))
    assert validation_scores([found], [nothing], ["a", "b"]) == Scores()
    assert validation_scores([], [], ["a"]) == Scores()


def test_scores_of_a_validation_by_hand() -> None:
    """Class a: its object found at IoU 0.8 after a miss; class b: one of two objects found exactly."""
    box, far = [0.0, 0, 10, 10], [50.0, 50, 60, 60]
    objects = Objects(
        torch.tensor([box, box, far]), torch.tensor([1, 2, 2]), torch.zeros(3, dtype=torch.bool)
    )
    found = Detections(
        torch.tensor([far, [0.0, 0, 10, 8], box]), torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 1, 2])
    )
    scores = validation_scores([found], [objects], ["a", "b"])
    assert scores.map50 == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert scores.f1 == pytest.approx((2 / 3 + 2 / 3) / 2)
    # COCO: a holds at the seven thresholds up to 0.80, b at all ten; recall 1/2 reaches 51 of 101 points.
    assert scores.map == pytest.approx((7 / 10 * 1 / 2 + 51 / 101) / 2)


def test_patience_counts_the_validations_since_the_best() -> None:
    patience = Patience()
    trace = []
    for value in (0.1, 0.3, 0.3, 0.2, 0.4, 0.0):
        patience.observe(value)
        trace.append((patience.best, patience.waited))
    assert trace == [(0.1, 0), (0.3, 0), (0.3, 1), (0.3, 2), (0.4, 0), (0.4, 1)]


def test_patience_ends_at_its_limit_and_never_without_one() -> None:
    patience = Patience()
    assert not patience.exceeded(1)
    for _ in range(3):
        patience.observe(0.5)
    assert [patience.exceeded(limit) for limit in (0, 1, 2, 3)] == [False, True, True, False]


@pytest.mark.parametrize("make", [Patience, Plateau])
def test_both_counters_come_back_from_plain_values(make: type[Patience] | type[Plateau]) -> None:
    fresh = asdict(make())
    assert fresh["best"] == -math.inf
    assert make(**fresh) == make()
    one, other = Plateau(), Plateau()
    for value in (0.1, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3, 0.2, 0.1):
        one.observe(value, patience=2, gamma=0.5)
        other = Plateau(**asdict(other))
        other.observe(value, patience=2, gamma=0.5)
    assert one == other
    assert one.factor == 0.125
