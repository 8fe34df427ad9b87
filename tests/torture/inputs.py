"""`python -m tests.torture.inputs`: gives thousands of damaged files to every reader, and counts outcomes.

Each target runs in a process of its own, so that a crash by a signal is seen and named.
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
from pathlib import Path

from tests.torture.mutations import mutate
from tests.torture.targets import every_target

OUTCOMES = ("refused", "read", "traceback", "broken promise", "crash")
NAMES = tuple(every_target(Path()))
MEMORY = 12 << 30  # bytes of address space; a file that asks for more must be refused
SHOWN = 3


def run_target(name: str, num_inputs: int, seed: int) -> None:
    """Damage files of one target; print a JSON line of counts, and failures with the seed of each input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
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
            print(number, end=" ", file=sys.stderr, flush=True)  # the last one is named if the process dies
            try:
                outcome = target.read(file, damaged)
            except AssertionError as error:
                outcome = "broken promise"
                failures.append(f"input {number}, {file}: {error}")
            except Exception:  # noqa: BLE001 (what is counted)
                outcome = "traceback"
                failures.append(f"input {number}, {file}: {traceback.format_exc(limit=-4)}")
            counts[outcome] += 1
    print(json.dumps({"counts": counts, "failures": failures}))


def torture(num_inputs: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Counts of outcomes by target, and failures; `num_inputs` over all targets."""
    table: dict[str, Counter[str]] = {}
    failures: list[str] = []
    each = -(-num_inputs // len(NAMES))
    for name in NAMES:
        command = [
            sys.executable,
            "-m",
            "tests.torture.inputs",
            "--target",
            name,
            "--inputs",
            str(each),
            "--seed",
            str(seed),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            found = json.loads(done.stdout.splitlines()[-1])
            table[name] = Counter(found["counts"])
            failures += [f"{name}: {failure}" for failure in found["failures"]]
        else:
            table[name] = Counter(crash=1)
            failures.append(f"{name}: exit code {done.returncode} after input {done.stderr[-2000:]}")
    return table, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=5000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other damage")
    parser.add_argument("--target", choices=NAMES, help="one reader, in this process")
    options = parser.parse_args()
    if options.target:
        run_target(options.target, options.inputs, options.seed)
        return
    table, failures = torture(options.inputs, options.seed)
    print(f"{'damaged inputs, seed ' + str(options.seed):<28}" + "".join(f"{name:>16}" for name in OUTCOMES))
    for name, counts in [*table.items(), ("total", sum(table.values(), Counter()))]:
        print(f"{name:<28}" + "".join(f"{counts[outcome]:>16}" for outcome in OUTCOMES))
    for failure in failures[: 20 * SHOWN]:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
