"""From the experiments of folds to means and deviations: what counts, what does not, what is said."""

import json
import statistics
from typing import Any

import pytest

from ssd.cross_validation import (
    Experiment,
    State,
    as_json,
    as_text,
    class_figures,
    cross_validations,
    different_params,
    figures,
)

MAPS = [0.41, 0.38, 0.45, 0.40, 0.43]


def experiment(
    fold: int,
    *,
    folds: int = 5,
    lr: float = 0.1,
    state: State = "finished",
    created: str = "10:00",
    name: str = "",
) -> Experiment:
    metrics: dict[str, Any] = {
        "coco": {"map": MAPS[fold], "map50": 0.5, "map75": None},
        "voc": {"map_area": MAPS[fold] + 0.1},
        "num_images": 7,
        "per_class": [
            {"class": "cat", "num_objects": 9, "coco_ap": MAPS[fold] / 2},
            {"class": "a rare dog", "num_objects": int(fold == 2), "coco_ap": 0.7 if fold == 2 else None},
        ],
    }
    return Experiment(
        name=name or f"{state}-{fold}",
        revision=f"{fold}" * 40,
        created=created,
        state=state,
        params={"data": {"source": "shapes", "folds": folds, "fold": fold}, "train": {"lr": lr}},
        metrics=metrics if state == "finished" else {},
    )


def test_mean_and_deviation_are_those_of_the_folds() -> None:
    (found,) = cross_validations([experiment(fold) for fold in range(5)])
    assert not found.missing
    assert list(figures(found)) == ["coco map", "coco map50", "voc map_area"]
    spread = figures(found)["coco map"]
    assert spread.mean == pytest.approx(statistics.mean(MAPS))
    assert spread.std == pytest.approx(statistics.stdev(MAPS))
    assert spread.values == dict(enumerate(MAPS))


def test_classes_have_their_own_mean_over_the_folds_that_have_them() -> None:
    (found,) = cross_validations([experiment(fold) for fold in range(5)])
    classes = class_figures(found)
    assert classes["cat"]["coco_ap"].mean == pytest.approx(statistics.mean(MAPS) / 2)
    assert classes["cat"]["coco_ap"].std == pytest.approx(statistics.stdev(MAPS) / 2)
    assert list(classes["cat"]) == ["coco_ap"], "counts are not averaged"
    assert classes["a rare dog"]["coco_ap"].values == {2: 0.7}
    assert classes["a rare dog"]["coco_ap"].std is None


def test_the_order_of_the_experiments_does_not_matter() -> None:
    runs = [experiment(fold, created=f"1{fold}:00") for fold in range(5)]
    assert cross_validations(runs[::-1]) == cross_validations(runs)


def test_experiments_that_differ_in_anything_else_are_another_set() -> None:
    runs = [
        experiment(fold, lr=lr, folds=folds) for fold in range(3) for lr in (0.1, 0.2) for folds in (3, 5)
    ]
    found = cross_validations(runs)
    assert len(found) == 4
    assert all(list(item.finished) == [0, 1, 2] for item in found)
    assert sorted(item.num_folds for item in found if item.missing) == [5, 5]
    assert different_params(found)[0] == "data.folds=3 train.lr=0.1"
    assert different_params(found[:1]) == [""]


def test_the_set_with_the_newest_experiment_is_last() -> None:
    runs = [experiment(0, lr=0.1, created="12:00"), experiment(0, lr=0.2, created="11:00")]
    assert [item.params["train"]["lr"] for item in cross_validations(runs)] == [0.2, 0.1]


def test_experiments_without_folds_are_left_out() -> None:
    assert cross_validations([experiment(0, folds=0)]) == []
    assert cross_validations([]) == []


def test_of_a_repeated_fold_the_newest_counts() -> None:
    runs = [experiment(1, created=f"1{hour}:00", name=f"run-{hour}") for hour in (1, 3, 2)]
    (found,) = cross_validations(runs)
    assert found.finished[1].name == "run-3"
    assert [item.name for item in found.repeated] == ["run-2", "run-1"]
    assert "fold 1 was repeated: the newest counts, run-3, not run-1" in as_text(found)


def test_unfinished_folds_give_no_figures_and_are_named() -> None:
    states: list[State] = ["finished", "failed", "queued", "running", "without figures"]
    runs = [experiment(fold, state=state) for fold, state in enumerate(states)]
    (found,) = cross_validations(runs)
    assert found.missing == [1, 2, 3, 4]
    assert figures(found)["coco map"].values == {0: MAPS[0]}
    text = as_text(found)
    for line in (
        "folds found: 0 of 5",
        "fold 1 failed: failed-1",
        "fold 2 is queued: queued-2",
        "fold 3 is running: running-3",
        "fold 4 finished without figures: without figures-4",
        "the figures are of some folds only",
    ):
        assert line in text.splitlines()
    assert "missing" not in text


def test_folds_that_were_never_started_are_missing() -> None:
    (found,) = cross_validations([experiment(0), experiment(3, state="failed")])
    assert found.missing == [1, 2, 3, 4]
    assert "missing and not queued: fold 1, 2, 4" in as_text(found)


def test_a_failure_is_forgotten_once_the_fold_has_finished_but_a_repetition_is_announced() -> None:
    runs = [experiment(0), experiment(0, state="failed"), experiment(1), experiment(1, state="queued")]
    (found,) = cross_validations(runs)
    text = as_text(found)
    assert "failed" not in text
    assert "fold 1 is queued once more: queued-1" in text
    assert found.missing == [2, 3, 4]


def test_a_set_of_which_nothing_has_finished_has_no_tables() -> None:
    (found,) = cross_validations([experiment(fold, folds=2, state="queued") for fold in range(2)])
    assert as_text(found).splitlines() == [
        "folds found: none of 2",
        "fold 0 is queued: queued-0",
        "fold 1 is queued: queued-1",
    ]
    assert as_json(found)["figures"] == {}


def test_the_text_is_a_table_of_figures_and_one_of_classes() -> None:
    (found,) = cross_validations([experiment(fold, folds=2) for fold in range(2)])
    assert as_text(found) == (
        "folds found: 0, 1 of 2\n"
        "\n"
        "                mean     std  folds\n"
        "coco map      0.3950  0.0212   0, 1\n"
        "coco map50    0.5000  0.0000   0, 1\n"
        "voc map_area  0.4950  0.0212   0, 1\n"
        "\n"
        "class                coco_ap\n"
        "cat         0.1975 +- 0.0106\n"
        "a rare dog                 -"
    )


def test_the_json_holds_what_the_text_says_and_the_value_of_each_fold() -> None:
    (found,) = cross_validations([experiment(0), experiment(2), experiment(4, state="failed")])
    content = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert content["num_folds"] == 5
    assert content["params"] == {"data": {"source": "shapes", "folds": 5}, "train": {"lr": 0.1}}
    assert content["finished"] == {"0": "finished-0", "2": "finished-2"}
    assert content["missing"] == [1, 3, 4]
    assert content["unfinished"] == [{"fold": 4, "experiment": "failed-4", "state": "failed"}]
    assert content["figures"]["coco map"] == {
        "mean": pytest.approx(0.43),
        "std": pytest.approx(statistics.stdev([0.41, 0.45])),
        "values": {"0": 0.41, "2": 0.45},
    }
    assert content["per_class"]["a rare dog"]["coco_ap"] == {"mean": 0.7, "std": None, "values": {"2": 0.7}}
