"""How the work beside the network grows: at 1, 3 and 10 times the images, boxes per image and classes.

Decoding and the network itself grow with the images alone, at rates that other benchmarks measure. What is
left are the parts that see a whole data set at once, and the parts of a step that see boxes and classes.
docs/scale.md has the table.

python -m benchmarks.growth    # writes benchmarks/results/growth.json; some minutes
"""

import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.growth_parts import PARTS, Size
from benchmarks.harness import Benchmark, Step, peak_memory, take_turns
from benchmarks.results import Result, make_result, write_result

FACTORS = (1, 3, 10)
NUM_RUNS = 5


@dataclass(frozen=True)
class Curve:
    """Growth of a part along one axis.

    seconds: medians at FACTORS; exponent: of the power law through the first and the last, 1 is linear;
    mib: peak memory on top of nothing at FACTORS, None where it was not measured.
    """

    part: str
    axis: str
    seconds: list[float]
    exponent: float
    mib: list[float] | None


def run() -> Result:
    """Measure all curves."""
    logging.getLogger("ssd").setLevel(logging.ERROR)  # of priors that are left out
    curves = []
    for name, part in PARTS.items():
        for axis in part.axes:
            curves.append(measure(name, axis))
            print(curves[-1], flush=True)
    settings = {"one": asdict(Size()), "factors": FACTORS, "curves": [asdict(curve) for curve in curves]}
    return make_result("growth", settings, {}, [])


def measure(name: str, axis: str) -> Curve:
    """A curve: its three sizes in turns, in one process."""
    with tempfile.TemporaryDirectory() as folder:
        benchmark = growth_benchmark(name, axis, folder)
        timings = take_turns(benchmark)
    seconds = [median(timings[str(factor)]) for factor in FACTORS]
    mib = None
    if PARTS[name].memory:
        peaks = [measure_memory(name, axis, factor) for factor in FACTORS]
        mib = [peak for peak in peaks if peak is not None] or None
    exponent = math.log(seconds[-1] / seconds[0]) / math.log(FACTORS[-1] / FACTORS[0])
    return Curve(name, axis, seconds, exponent, mib)


def measure_memory(name: str, axis: str, factor: int) -> float | None:
    with tempfile.TemporaryDirectory() as folder:
        return peak_memory(partial(growth_benchmark, name, axis, folder), str(factor))


def growth_benchmark(name: str, axis: str, folder: str) -> Benchmark[None]:
    """The part at FACTORS times of an axis, each in a folder of its own."""

    def build(factor: int) -> Callable[[None], Step]:
        place, size = Path(folder) / str(factor), replace(Size(), **{axis: getattr(Size(), axis) * factor})

        def make(_: None) -> Step:
            place.mkdir()
            return PARTS[name].build(size, place)

        return make

    return Benchmark(
        name=name,
        settings={},
        make_inputs=lambda: None,
        candidates={str(factor): build(factor) for factor in FACTORS},
        comparisons=(),
        warmup=1,
        runs=NUM_RUNS,
        num_threads=1,
    )


def main() -> None:
    result = run()
    write_result(result)


if __name__ == "__main__":
    main()
