"""Long tests on demand, each with a table: `python -m tests.torture --kills 150 --inputs 5000 --seed 1`."""

import argparse
import secrets
import sys

from tests.torture.campaign import run_campaign, table_of
from tests.torture.inputs import NAMES, format_table, torture


def main() -> int:
    """Print the tables and what went wrong; return the exit code, 1 if anything did."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=150, help="number of kills (default: %(default)s)")
    parser.add_argument(
        "--inputs", type=int, default=5000, help="number of damaged files (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of all that is random")
    options = parser.parse_args()
    numbers = f"--kills {options.kills} --inputs {options.inputs} --seed {options.seed}"
    print(f"to repeat this: python -m tests.torture {numbers}", flush=True)
    table, failures = torture(NAMES, -(-options.inputs // len(NAMES)), options.seed)
    print(f"\n{format_table(table, options.seed)}")
    print("\n".join(failures), flush=True)
    kills = run_campaign(options.kills, options.seed)
    print(f"\nkills\n\n{table_of(kills)}")
    return int(bool(failures) or not all(kill.is_harmless for kill in kills))


if __name__ == "__main__":
    sys.exit(main())
