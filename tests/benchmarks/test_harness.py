"""How benchmarks are taken: in turns, by medians, memory in a process of its own, results as JSON."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import harness
from benchmarks.harness import Benchmark, Comparison, compare, peak_memory, run, take_turns
from benchmarks.results import Candidate, Row, read_results, write_result

Calls = list[str]


def recording(agree: Callable[[object], None] = lambda results: None) -> Benchmark[Calls]:
    """Two candidates that write down when they are called, and return their names."""

    def candidate(name: str, calls: Calls) -> Callable[[], str]:
        def step() -> str:
            calls.append(name)
            return name

        return step

    return Benchmark(
        name="recording",
        settings={"size": 3},
        make_inputs=list,
        candidates={"ours": partial(candidate, "ours"), "peer": partial(candidate, "peer")},
        comparisons=(Comparison("writing", "ours", "peer", min_ratio=1e-9),),
        agree=agree,
        warmup=2,
        runs=2,
    )


def take(num_mib: int, inputs: bytes) -> Callable[[], int]:
    """Fill so much memory and let go of it."""
    return lambda: len(bytearray(num_mib * 2**20))


def hungry() -> Benchmark[bytes]:
    """Two candidates that take 64 and 160 MiB on top of an input of 96."""
    return Benchmark(
        name="hungry",
        settings={},
        make_inputs=partial(bytes, 96 * 2**20),
        candidates={"ours": partial(take, 64), "peer": partial(take, 160)},
        comparisons=(Comparison("eating", "ours", "peer"),),
        warmup=1,
        runs=1,
    )


def test_candidates_take_turns_after_the_warm_up_of_each() -> None:
    calls: Calls = []
    seconds = take_turns(replace(recording(), make_inputs=lambda: calls))
    assert sorted(calls[:4]) == ["ours", "ours", "peer", "peer"]
    assert calls[4:] == ["ours", "peer"] * 2
    assert {name: len(values) for name, values in seconds.items()} == {"ours": 2, "peer": 2}
    assert all(value >= 0 for values in seconds.values() for value in values)


def test_results_are_compared_before_anything_is_timed() -> None:
    def refuse(results: object) -> None:
        assert results == {"ours": "ours", "peer": "ours"}, "they differ"

    with pytest.raises(AssertionError, match="they differ"):
        take_turns(recording(refuse))


def test_peak_memory_is_that_of_one_candidate_on_top_of_its_inputs() -> None:
    ours, peer = (peak_memory(hungry, name) for name in ("ours", "peer"))
    assert ours is not None and 60 < ours < 80
    assert peer is not None and 156 < peer < 176


def test_threads_are_those_of_the_benchmark_and_only_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "peak_memory", lambda make, name: None)
    before = torch.get_num_threads()
    result = run(lambda: replace(recording(), num_threads=before + 1))
    assert result.where["machine"]["threads"] == before + 1
    assert torch.get_num_threads() == before


def row(comparison: Comparison, ours: Candidate, peer: Candidate) -> Row:
    return compare(comparison, {"ours": ours, "peer": peer})


def test_the_figures_are_medians() -> None:
    comparison = Comparison("it", "ours", "peer", num_images=6, min_ratio=2)
    found = row(comparison, Candidate([9.0, 2.0, 1.0], 10.0), Candidate([6.0, 5.0, 0.1], 10.0))
    assert (found.ours, found.peer, found.unit) == (3.0, 1.2, "images/s")
    assert found.ratio == 2.5
    assert (found.aim, found.met, found.memory_met) == ("2x", True, True)


@pytest.mark.parametrize(("min_ratio", "met"), [(2.0, True), (2.01, False)])
def test_a_ratio_below_the_aim_is_missed(min_ratio: float, met: bool) -> None:
    comparison = Comparison("it", "ours", "peer", min_ratio=min_ratio)
    assert row(comparison, Candidate([1.0], None), Candidate([2.0], None)).met is met


@pytest.mark.parametrize(("seconds", "met"), [(4.9, True), (5.0, False)])
def test_an_aim_may_be_a_time(seconds: float, met: bool) -> None:
    found = compare(Comparison("it", "ours", max_seconds=5), {"ours": Candidate([seconds], 1.0)})
    assert (found.aim, found.met, found.peer, found.memory_met) == ("under 5 s", met, None, None)


@pytest.mark.parametrize(
    ("ours", "memory", "met"),
    [(9.0, True, True), (11.0, True, False), (11.0, False, None), (None, True, None)],
)
def test_memory_is_an_aim_of_its_own(ours: float | None, memory: bool, met: bool | None) -> None:
    comparison = Comparison("it", "ours", "peer", memory=memory)
    found = row(comparison, Candidate([1.0], ours), Candidate([1.0], 10.0))
    assert (found.met, found.memory_met) == (None, met)


def test_results_survive_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "peak_memory", lambda make, name: {"ours": 64.0, "peer": 160.0}[name])
    result = run(hungry)
    write_result(result, tmp_path)
    assert read_results(["hungry", "absent"], tmp_path) == {"hungry": result, "absent": None}
    assert set(result.where) == {"date", "commit", "machine", "versions"}
    assert result.where["machine"]["cores"] >= 1
    for candidate in result.candidates.values():
        assert candidate["seconds"] == [candidate["median_s"]]
    assert result.rows[0].memory_met is True
