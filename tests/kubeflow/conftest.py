"""The scripts of kubeflow/ as modules, and compiled pipelines run through kfp's local runner."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "kubeflow"))
