"""Validation scores, the choice among them, and the patience with them."""

import math
import random
from dataclasses import asdict
from typing import get_args

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ssd.metrics.coco import evaluate_coco
from ssd.metrics.voc import evaluate_voc
from ssd.params import SelectBy
from ssd.structures import Detections, Objects
from ssd.training.history import Epoch
from ssd.training.selection import MEASURES, Patience, Plateau, Scores, measured, score, validation_scores

NAMES = get_args(SelectBy)


def epoch(train_loss: float = 3.0, **validation: float | None) -> Epoch:
    """An epoch in which nothing else was measured."""
    row = dict.fromkeys(Epoch.__dataclass_fields__) | {"train_loss": train_loss} | validation
    return Epoch(**row)  # type: ignore[arg-type]


def test_the_chosen_score_decides_and_a_loss_counts_negative() -> None:
    row = epoch(3.0, val_loss=2.0, val_map50=0.6, val_map75=0.2, val_map=0.3, val_f1=0.9)
    expected = {
        "map50": 0.6,
        "map75": 0.2,
        "map": 0.3,
        "f1": 0.9,
        "mean": 0.6,
        "map50_f1": 0.75,
        "val_loss": 2.0,
        "train_loss": 3.0,
    }
    assert expected.keys() == MEASURES.keys() == set(NAMES)
    for name in NAMES:
        assert measured(row, name) == pytest.approx(expected[name])
        assert score(row, name) == pytest.approx(-expected[name] if "loss" in name else expected[name])


def test_without_an_object_or_a_validation_there_is_no_score() -> None:
    assert [score(epoch(), name) for name in NAMES] == [None] * 7 + [-3.0]
    assert score(epoch(val_map50=0.0, val_map=0.0, val_f1=0.0), "mean") == 0.0
    assert score(epoch(val_map50=0.5, val_map=0.5), "mean") is None
    assert score(epoch(val_map50=0.5), "map50_f1") is None
    for value in (math.nan, math.inf):
        assert score(epoch(value, val_loss=value), "val_loss") is None
        assert measured(epoch(value), "train_loss") is None
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
    assert scores.f1 == pytest.approx((2 / 3 + 2 / 3) / 2)
    at_a_score = validation_scores([found], [objects], ["a", "b"], f1_score=0.75)
    assert at_a_score.f1 == pytest.approx((2 / 3 + 0) / 2)
    assert at_a_score.map50 == scores.map50
    # COCO: a holds at the seven thresholds up to 0.80, b at all ten; recall 1/2 reaches 51 of 101 points.
    assert scores.map50 == scores.map75 == pytest.approx((1 / 2 + 51 / 101) / 2)
    assert scores.map == pytest.approx((7 / 10 * 1 / 2 + 51 / 101) / 2)


def test_scores_are_those_that_evaluate_reports() -> None:
    """Not Pascal's area, which is another figure."""
    generator = torch.Generator().manual_seed(0)
    detections, objects = [], []
    for _ in range(5):
        corner, labels = torch.rand(6, 2, generator=generator) * 40, torch.arange(6) % 2 + 1
        boxes = torch.cat([corner, corner + 20], 1)
        objects.append(Objects(boxes[:4], labels[:4], labels[:4] == 0))
        moved = boxes + 8 * torch.rand(6, 4, generator=generator)
        detections.append(Detections(moved, torch.rand(6, generator=generator), labels))
    scores = validation_scores(detections, objects, ["a", "b"])
    coco, voc = evaluate_coco(detections, objects, ["a", "b"]), evaluate_voc(detections, objects, 2)
    assert scores == Scores(map50=coco.map50, map75=coco.map75, map=coco.map, f1=voc.mean_f1)
    assert scores.map50 != voc.map_area
    assert None not in asdict(scores).values()


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
        one.observe(value, patience=1, gamma=0.5, threshold=1e-4)
        other = Plateau(**asdict(other))
        other.observe(value, patience=1, gamma=0.5, threshold=1e-4)
    assert one == other
    assert one.factor == 0.125


def creeping(generator: random.Random, length: int) -> list[float]:
    """Values that repeat, fall back, or pass the best by a relative 1e-5 to 0.3."""
    values, best = [], 0.1
    for _ in range(length):
        step = generator.choice([0.0, -0.1, 1e-5, 9e-5, 1.1e-4, 0.04, 0.06, 0.3])
        values.append(best * (1 + step))
        best = max(best, values[-1])
    return values


@pytest.mark.parametrize("mode", ["max", "min"])
def test_plateau_is_torchs(mode: str) -> None:
    """Our scores of mode min are negative: those of losses."""
    generator = random.Random(0)
    num_lowered = 0
    for _ in range(60):
        patience, threshold = generator.randrange(5), generator.choice([0.0, 1e-4, 0.05])
        values = creeping(generator, 25)
        if mode == "min":
            values = [1 / value for value in values]
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
        theirs = ReduceLROnPlateau(optimizer, mode, 0.5, patience, threshold, eps=0.0)  # type: ignore[arg-type]
        ours = Plateau()
        for value in values:
            theirs.step(value)
            ours.observe(value if mode == "max" else -value, patience, 0.5, threshold)
            assert ours.factor == theirs.get_last_lr()[0]
        num_lowered += ours.factor < 1
    assert 20 < num_lowered < 60


def test_what_has_no_score_is_no_improvement() -> None:
    plateau = Plateau()
    for _ in range(4):
        plateau.observe(-math.inf, patience=1, gamma=0.5, threshold=1e-4)
    assert (plateau.factor, plateau.best) == (0.25, -math.inf)
