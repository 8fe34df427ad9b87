"""Two checkouts of this repository in turns in one process: did a change make it slower?

git worktree add ../before some-commit
python -m benchmarks.against ../before training_step detector evaluation_stage

Each side runs its own benchmark code of that name. Ratios above 1: the other checkout takes longer.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.harness import Benchmark, Step, take_turns

PACKAGES = ("ssd", "stages", "benchmarks")
HERE = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against", description="Time two checkouts in turns."
    )
    parser.add_argument("checkout", type=Path, help="folder of the other checkout")
    parser.add_argument("names", nargs="+", metavar="NAME", help="benchmarks that both of them have")
    arguments = parser.parse_args()
    for name in arguments.names:
        for candidate, (here, there) in compare(name, arguments.checkout.resolve()).items():
            print(f"{name} {candidate}: here {here:.4g} s, there {there:.4g} s, ratio {there / here:.3f}")


def compare(name: str, checkout: Path) -> dict[str, tuple[float, float]]:
    """Median seconds here and there of each candidate `ours...` that both checkouts have."""
    here = our_steps(name, HERE)
    there = our_steps(name, checkout)
    both = [candidate for candidate in here if candidate in there]
    steps = {f"{where} {c}": side[c] for c in both for where, side in (("here", here), ("there", there))}
    seconds = take_turns(
        Benchmark(
            name=name,
            settings={},
            make_inputs=lambda: None,
            candidates={key: constant(step) for key, step in steps.items()},
            comparisons=(),
            warmup=3,
            runs=25,
        )
    )
    return {c: (median(seconds[f"here {c}"]), median(seconds[f"there {c}"])) for c in both}


def our_steps(name: str, checkout: Path) -> dict[str, Step]:
    """A step of each candidate `ours...` of a benchmark, made by a checkout's own code on its own inputs."""
    with modules_of(checkout):
        benchmark = importlib.import_module(f"benchmarks.{name}").benchmark()
        torch.manual_seed(0)
        inputs = benchmark.make_inputs()
        candidates = benchmark.candidates.items()
        return {key: build(inputs) for key, build in candidates if key.startswith("ours")}


def constant(step: Step) -> Callable[[Any], Step]:
    """A candidate whose step is made already."""
    return lambda _: step


@contextmanager
def modules_of(checkout: Path) -> Iterator[None]:
    """Within the block, this project's packages and params.yaml are those of a checkout."""
    own = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in PACKAGES}
    folder = Path.cwd()
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path.remove(str(checkout))
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        sys.modules.update(own)


if __name__ == "__main__":
    main()
