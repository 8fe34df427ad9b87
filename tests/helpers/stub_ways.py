"""How a search runs stub_experiment.py in place of DVC, and reads what it leaves."""

import json
import sys
from pathlib import Path
from typing import Any

from stages.experiment import Experiment, Ways

SCRIPT = Path(__file__).with_name("stub_experiment.py")


def stub_ways(folder: Path) -> Ways:
    """To run this in place of DVC; test figures are those of val less 0.1.

    Those of fused models are 0.02 more on val, 0.02 less on test.
    """

    def content(revision: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / "done" / revision).read_text())
        return found

    def read(revision: str, path: str) -> str:
        history = str(content(revision)["history"])
        if path.endswith(".tsv"):
            return history
        value = float(history.split()[-1])
        if path.endswith("ensemble.json"):
            return json.dumps({"map50": value + 0.03, "f1": value + 0.01})
        fused = {"map50": value - 0.01, "f1": value - 0.03}
        return json.dumps({"coco": {"map50": value - 0.1}, "ensemble": fused})

    def command(experiment: Experiment) -> list[str]:
        changes = json.dumps(dict(experiment.changes))
        return [sys.executable, "-S", str(SCRIPT), str(folder), experiment.name, changes]

    return Ways(
        command=command,
        find=lambda name: name if (folder / "done" / name).is_file() else None,
        params=lambda revision: content(revision)["params"],
        read=read,
    )
