"""The score from which a detection counts."""

import pytest
import torch

from ssd.errors import UserError
from ssd.inference.thresholds import choose_thresholds, lowest_settings
from ssd.structures import Detections

NAMES = ["cat", "dog", "a=b"]


def test_a_class_may_have_its_own() -> None:
    thresholds = choose_thresholds({"class_names": NAMES}, 0.5, ["dog=0.2", "a=b=1"])
    assert thresholds.scores.tolist() == pytest.approx([0.5, 0.2, 1.0])
    found = Detections(torch.rand(4, 4), torch.tensor([0.9, 0.5, 0.4, 0.3]), torch.tensor([3, 1, 1, 2]))
    kept = thresholds.keep(found)
    assert kept.labels.tolist() == [1, 2]
    assert torch.equal(kept.boxes, found.boxes[[1, 3]])


def test_without_one_the_operating_point_counts_if_the_model_states_it() -> None:
    stated = {"class_names": NAMES, "certificate": {"metrics": {"operating_score": 0.42}}}
    assert choose_thresholds(stated, None, []).scores.tolist() == pytest.approx([0.42] * 3)
    assert choose_thresholds({"class_names": NAMES}, None, []).scores.tolist() == pytest.approx([0.3] * 3)


def test_a_model_gives_what_the_lowest_threshold_keeps() -> None:
    assert lowest_settings(None, []).score_threshold == 0.05
    assert lowest_settings(0.5, ["cat=0.01"]).score_threshold == 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dgo=0.5", "did you mean dog?"),
        ("horse=0.5", "its classes: cat, dog"),
        ("dog", "NAME=SCORE"),
        ("dog=high", "NAME=SCORE"),
        ("dog=1.5", "from 0 to 1"),
        ("dog=nan", "from 0 to 1"),
        ("=0.5", "NAME=SCORE"),
    ],
)
def test_what_is_no_threshold_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        choose_thresholds({"class_names": NAMES}, None, [text])
