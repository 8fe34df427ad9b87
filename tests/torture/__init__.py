"""Kills, and damaged inputs: `python -m tests.torture` from the repository's root (`make torture`)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
