"""Long tests on demand: `make torture`. The test suite runs a short part of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
