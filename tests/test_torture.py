"""What `make torture` measures by: it sees a difference, and the plan covers every stage and every way."""

from pathlib import Path
from random import Random

import pytest

from tests.torture.campaign import make_plan, table_of
from tests.torture.kills import Kill, Way
from tests.torture.results import STAGES, content, differing_bits, results


def test_bits_that_differ_or_are_missing_are_counted() -> None:
    assert differing_bits({"a": b"\x00\x01", "b": b""}, {"a": b"\x00\x01", "b": b""}) == 0
    assert differing_bits({"a": b"\x07\x01"}, {"a": b"\x00\x01"}) == 3
    assert differing_bits({"a": b"\x00"}, {"a": b"\x01\xff", "b": b"x"}) == 1 + 8 + 8


def test_a_history_differs_by_its_losses_and_not_by_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "history.tsv"
    found = []
    for loss, seconds in ((1.5, 3.1), (1.5, 4.7), (1.6, 3.1)):
        path.write_text(f"epoch\ttrain_loss\tseconds\n1\t{loss}\t{seconds}\n")
        found.append(content(path))
    assert found[0] == found[1] != found[2]


def test_a_file_that_is_missing_or_moved_is_a_difference(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name / "data/raw").mkdir(parents=True)
        (tmp_path / name / "data/raw" / name).write_text("the same")
        found.append(results(tmp_path / name))
    assert found[0].keys() == set(STAGES)
    assert differing_bits(found[0]["download"], found[1]["download"]) > 0
    assert found[0]["train"]["models/model.pt"] == b""


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_goes_through_all_stages_in_order_and_all_ways(seed: int) -> None:
    plan = make_plan(10, Random(seed))
    stages = [stage for stage, _ in plan]
    assert len(plan) == 10
    assert stages == sorted(stages, key=STAGES.index)
    assert set(stages) == set(STAGES)
    assert {way for _, way in plan} == set(Way) - {Way.RANK}
    ranks = [make_plan(20, Random(seed), num_processes=2) for seed in range(20)]
    assert {stage for plan in ranks for stage, way in plan if way is Way.RANK} == {"train"}


def test_the_table_has_a_line_for_each_way_and_place_and_one_of_sums() -> None:
    kills = [
        Kill(Way.CTRL_C, "train", "dvc", text="Traceback (most recent call last):\n", mended=1),
        Kill(Way.POWER_CUT, "train", "train", bits=5),
        Kill(Way.POWER_CUT, "train", "train", orphans=1),
    ]
    assert [kill.is_harmless for kill in kills] == [False, False, False]
    assert Kill(Way.DVC, "train", "train", refused=1).is_harmless
    lines = [line.split() for line in table_of(kills).splitlines()]
    assert lines[1:] == [
        ["SIGKILL", "to", "all", "train", "2", "5", "0", "1", "0", "0", "0"],
        ["SIGINT", "to", "all", "dvc", "1", "0", "1", "0", "0", "0", "1"],
        ["all", "3", "5", "1", "1", "0", "0", "1"],
    ]
