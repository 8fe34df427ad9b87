"""Runs a benchmark: candidates timed alternately in one process, peak memory of each in another process."""

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Generic, TypeVar

import torch

from benchmarks.results import Candidate, Result, Row, make_result

Inputs = TypeVar("Inputs")
Step = Callable[[], Any]
"""One unit of a candidate's work; returns its result."""

STATUS = Path("/proc/self/status")
NUM_RUNS_FOR_MEMORY = 1


@dataclass(frozen=True)
class Comparison:
    """A line of the table.

    what: description; ours, peer: names of candidates, peer None where the aim is absolute; num_images: per
    step, None to show seconds; min_ratio: aim, times as fast as the peer; max_seconds: aim for a step;
    memory: whether our peak memory must be no higher than the peer's.
    """

    what: str
    ours: str
    peer: str | None = None
    num_images: int | None = None
    min_ratio: float | None = None
    max_seconds: float | None = None
    memory: bool = True


@dataclass(frozen=True)
class Benchmark(Generic[Inputs]):
    """Candidates that do the same work on the same inputs.

    settings: what a reader needs to repeat it; make_inputs: makes the inputs of all candidates; candidates:
    each makes its step from the inputs; agree: raises AssertionError unless the results of all steps, by
    candidate, agree; warmup: untimed calls per step, of which `agree` gets the first result; runs: timed
    calls; num_threads: of torch, None keeps its default.
    """

    name: str
    settings: Mapping[str, object]
    make_inputs: Callable[[], Inputs]
    candidates: Mapping[str, Callable[[Inputs], Step]]
    comparisons: tuple[Comparison, ...]
    agree: Callable[[Mapping[str, Any]], None] = field(default=lambda results: None)
    warmup: int = 2
    runs: int = 11
    num_threads: int | None = None


def run(make: Callable[[], Benchmark[Any]]) -> Result:
    """Time a benchmark, then measure the peak memory of its candidates.

    Args:
        make: makes the benchmark; it is pickled to other processes, so it must be a function of a module or
            a `partial` of one.
    """
    benchmark = make()
    num_threads = torch.get_num_threads()
    try:
        seconds = take_turns(benchmark)
        peaks = {name: peak_memory(make, name) for name in seconds}
        candidates = {name: Candidate(seconds[name], peaks[name]) for name in seconds}
        rows = [compare(comparison, candidates) for comparison in benchmark.comparisons]
        return make_result(benchmark.name, benchmark.settings, candidates, rows)
    finally:
        torch.set_num_threads(num_threads)


def take_turns(benchmark: Benchmark[Any]) -> dict[str, list[float]]:
    """Seconds of each timed call of each candidate.

    Candidates alternate call by call, so that other load on a shared machine affects all of them.
    """
    inputs = _inputs(benchmark)
    steps: dict[str, Step] = {name: build(inputs) for name, build in benchmark.candidates.items()}
    benchmark.agree({name: step() for name, step in steps.items()})
    for step in steps.values():
        for _ in range(benchmark.warmup - 1):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(benchmark.runs):
        for name, step in steps.items():
            gc.collect()  # garbage of the candidate before
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(make: Callable[[], Benchmark[Any]], candidate: str) -> float | None:
    """Peak memory in MiB of the steps of a candidate on top of its inputs, in a process of its own.

    None where there is no /proc/self/status (not Linux).
    """
    if not STATUS.exists():
        return None
    # Spawned: a forked process would share memory pages with this one.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_memory, make, candidate).result()


def _peak_memory(make: Callable[[], Benchmark[Any]], candidate: str) -> float:
    benchmark = make()
    inputs = _inputs(benchmark)
    gc.collect()
    # Return freed memory to the system, so that the candidate cannot reuse it unmeasured.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = _status_mib("VmRSS")
    step = benchmark.candidates[candidate](inputs)
    for _ in range(benchmark.warmup + NUM_RUNS_FOR_MEMORY):
        step()
    return _status_mib("VmHWM") - before


def _status_mib(key: str) -> float:
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return next(int(words[1]) / 1024 for words in lines if words[0] == f"{key}:")


def _inputs(benchmark: Benchmark[Inputs]) -> Inputs:
    if benchmark.num_threads is not None:
        torch.set_num_threads(benchmark.num_threads)
    torch.manual_seed(0)
    return benchmark.make_inputs()


def compare(comparison: Comparison, candidates: Mapping[str, Candidate]) -> Row:
    """The result of a comparison, by medians."""
    ours = candidates[comparison.ours]
    peer = candidates[comparison.peer] if comparison.peer else None
    our_seconds = median(ours.seconds)
    peer_seconds = median(peer.seconds) if peer else None
    ratio = peer_seconds / our_seconds if peer_seconds is not None else None
    aim, met = None, None
    if comparison.min_ratio is not None and ratio is not None:
        aim, met = f"{comparison.min_ratio:g}x", ratio >= comparison.min_ratio
    elif comparison.max_seconds is not None:
        aim, met = f"under {comparison.max_seconds:g} s", our_seconds < comparison.max_seconds
    our_peak, peer_peak = ours.peak_mib, peer.peak_mib if peer else None
    memory_met = None
    if comparison.memory and our_peak is not None and peer_peak is not None:
        memory_met = our_peak <= peer_peak
    images = comparison.num_images
    return Row(
        what=comparison.what,
        unit="images/s" if images else "s",
        ours=images / our_seconds if images else our_seconds,
        peer=images / peer_seconds if images and peer_seconds else peer_seconds,
        ratio=ratio,
        aim=aim,
        met=met,
        ours_mib=our_peak,
        peer_mib=peer_peak,
        memory_met=memory_met,
    )
