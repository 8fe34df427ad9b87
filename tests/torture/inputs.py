"""`python -m tests.torture.inputs`: gives thousands of damaged files to every reader, and counts outcomes.

The readers run in another process, so that a crash by a signal is seen, named and survived.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.torture.mutations import mutate
from tests.torture.targets import every_target

OUTCOMES = ("refused", "read", "traceback", "broken promise", "crash")
NAMES = tuple(every_target(Path()))
MEMORY = 12 << 30  # bytes of address space; a file that asks for more must be refused

Table = dict[str, Counter[str]]


def run_target(name: str, num_inputs: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damage files of one target: how often each outcome occurred, and what went wrong for which input."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        target = every_target(Path(folder))[name]()
        for file, content in target.seeds.items():
            assert target.read(file, content) == "read", f"{name}: {file} is refused without damage"
        for number in range(num_inputs):
            chance = random.Random(f"{seed} {name} {number}")
            file = chance.choice(list(target.seeds))
            damaged = mutate(target.seeds[file], list(target.seeds.values()), chance)
            print(f"{name}, input {number}", file=sys.stderr, flush=True)  # named if the process dies
            try:
                outcome = target.read(file, damaged)
            except AssertionError as error:
                outcome = "broken promise"
                failures.append(f"{name}, input {number}, {file}: {error}")
            except Exception:  # noqa: BLE001 (what is counted)
                outcome = "traceback"
                failures.append(f"{name}, input {number}, {file}: {traceback.format_exc(limit=-4)}")
            counts[outcome] += 1
    return counts, failures


def torture(names: Sequence[str], num_each: int, seed: int) -> tuple[Table, list[str]]:
    """Run targets in another process, and again from the next one on if it dies."""
    table: Table = {}
    failures: list[str] = []
    while left := [name for name in names if name not in table]:
        options = ["--inputs", str(num_each * len(left)), "--seed", str(seed), "--here", *left]
        command = [sys.executable, "-m", "tests.torture.inputs", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        for line in filter(None, done.stdout.splitlines()):
            name, counts, found = json.loads(line)
            table[name] = Counter(counts)
            failures += found
        if done.returncode:
            died = next(name for name in names if name not in table)
            table[died] = Counter(crash=1)
            failures.append(f"{died}: exit code {done.returncode} after {done.stderr[-2000:]}")
    return table, failures


def format_table(table: Table, seed: int) -> str:
    """A line for each target, and their sum."""
    title = f"damaged inputs, seed {seed}"
    rows = [f"{title:<28}" + "".join(f"{name:>16}" for name in OUTCOMES)]
    for name, counts in [*table.items(), ("total", sum(table.values(), Counter()))]:
        rows.append(f"{name:<28}" + "".join(f"{counts[outcome]:>16}" for outcome in OUTCOMES))
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and what went wrong; return the exit code, 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=5000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damage")
    parser.add_argument("--here", nargs="+", choices=NAMES, help="run these readers in this process")
    options = parser.parse_args(arguments)
    names = options.here or NAMES
    num_each = -(-options.inputs // len(names))
    if options.here:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for name in names:
            print(json.dumps([name, *run_target(name, num_each, options.seed)]), flush=True)
        return 0
    table, failures = torture(names, num_each, options.seed)
    print(format_table(table, options.seed))
    print("\n".join(failures[:60]))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
