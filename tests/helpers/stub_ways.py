"""How a search runs stub_experiment.py in place of DVC, and reads what it leaves."""

import json
import sys
from pathlib import Path
from typing import Any

from stages.experiment import Experiment, Ways

SCRIPT = Path(__file__).with_name("stub_experiment.py")


def stub_ways(folder: Path) -> Ways:
    """To run this in place of DVC; test figures are those of val less 0.1."""

    def content(revision: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((folder / "done" / revision).read_text())
        return found

    def read(revision: str, path: str) -> str:
        history = str(content(revision)["history"])
        if path.endswith(".tsv"):
            return history
        return json.dumps({"coco": {"map50": float(history.split()[-1]) - 0.1}})

    def command(experiment: Experiment) -> list[str]:
        changes = json.dumps(dict(experiment.changes))
        return [sys.executable, "-S", str(SCRIPT), str(folder), experiment.name, changes]

    return Ways(
        command=command,
        find=lambda name: name if (folder / "done" / name).is_file() else None,
        params=lambda revision: content(revision)["params"],
        read=read,
    )
