"""Which output of a stage becomes which artifact of Kubeflow Pipelines, and what its UI shows of it.

Needs neither kfp nor DVC: `pipeline.py` declares these artifacts, `step.py` writes them.

ClassificationMetrics has the confusion matrix and no ROC curve: its false positive rate divides by true
negatives, and a detector has none. The report has its precision-recall curves.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Values = dict[str, Any]

NO_OBJECT = "background (row), missed (column)"
"""Name of the matrix's last row and column."""


@dataclass(frozen=True)
class Artifact:
    """An output artifact of a step.

    name: in the pipeline; kind: class of `kfp.dsl`; source: what the stage wrote, in the project's folder;
    content: makes of the source what the artifact store keeps, None keeps a copy of the source;
    metadata: makes of the source what the UI lists, or draws as a table of metrics.
    """

    name: str
    kind: str
    source: str
    content: Callable[[Path], str] | None = None
    metadata: Callable[[Path], Values] = lambda source: {}


def write_artifact(artifact: Artifact, project: Path, target: Path) -> Values:
    """Write the file of an artifact; return its metadata.

    Args:
        project: the folder in which the stage has run.
        target: a path that does not exist yet.
    """
    source = project / artifact.source
    target.parent.mkdir(parents=True, exist_ok=True)
    if artifact.content is None:
        target.write_bytes(source.read_bytes())
    else:
        target.write_text(artifact.content(source), encoding="utf-8")
    return artifact.metadata(source)


def folder_size(folder: Path) -> Values:
    """Number of files and bytes in a folder."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return {"num_files": len(sizes), "bytes": sum(sizes)}


def list_files(folder: Path) -> str:
    """Size in bytes and name of each file in a folder: DVC keeps the data, the artifact says which."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{path.stat().st_size}\t{path.relative_to(folder)}\n" for path in files)


def file_size(path: Path) -> Values:
    return {"bytes": path.stat().st_size}


def figures(path: Path) -> Values:
    """All numbers of a JSON file outside of lists, and so without those of single classes."""
    return flat_numbers(json.loads(path.read_text()))


def flat_numbers(content: Mapping[str, Any], before: str = "") -> Values:
    """{"coco": {"map": 0.5}} as {"coco_map": 0.5}, for finite numbers: what is None has no figure."""
    numbers: Values = {}
    for key, value in content.items():
        name = before + key.replace(".", "_")
        if isinstance(value, Mapping):
            numbers |= flat_numbers(value, f"{name}_")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            numbers[name] = value
    return numbers


def last_epoch(history: Path) -> Values:
    """The numbers in the last row of a tab-separated table."""
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return flat_numbers({key: float(text) for key, text in rows[-1].items() if text})


def confusion_matrix(table: Path) -> Values:
    """The matrix as `kfp.dsl.ClassificationMetrics.log_confusion_matrix` keeps it.

    Kubeflow's matrix has one list of names for rows and columns, so its last one says both of ours.
    """
    with table.open(newline="") as file:
        (_, *names, _), *rows = csv.reader(file, delimiter="\t")
    return {
        "confusionMatrix": {
            "annotationSpecs": [{"displayName": name} for name in (*names, NO_OBJECT)],
            "rows": [{"row": [int(cell) for cell in row]} for _, *row in rows],
        }
    }


def preprocess_report(folder: Path) -> str:
    """A page of what preprocess found, kept, mended and dropped."""
    summary = json.loads((folder / "summary.json").read_text())
    problems = json.loads((folder / "problems.json").read_text())["problems"]
    lines = ["# Preprocess", "", "| | |", "| --- | --- |"]
    lines += [f"| {key} | {value} |" for key, value in summary["account"].items()]
    lines += ["", "| split | images | objects |", "| --- | --- | --- |"]
    for name, split in summary["splits"].items():
        lines.append(f"| {name} | {split['num_images']} | {split['num_objects']} |")
    lines += ["", f"{len(problems)} annotations or images were mended or dropped.", ""]
    lines += [f"- {warning}" for warning in summary["warnings"]]
    return "\n".join([*lines, ""])


ARTIFACTS: dict[str, list[Artifact]] = {
    "download": [Artifact("raw", "Dataset", "data/raw", list_files, folder_size)],
    "preprocess": [
        Artifact("tensors", "Dataset", "data/tensors", list_files, folder_size),
        Artifact("account", "Markdown", "reports/preprocess", preprocess_report),
    ],
    "train": [
        Artifact("model", "Model", "models/model.pt", None, file_size),
        Artifact("training", "Metrics", "reports/train/history.tsv", None, last_epoch),
    ],
    "evaluate": [
        Artifact("metrics", "Metrics", "reports/metrics.json", None, figures),
        Artifact(
            "confusion",
            "ClassificationMetrics",
            "reports/evaluate/confusion_matrix.tsv",
            None,
            confusion_matrix,
        ),
    ],
    "export": [
        Artifact("onnx", "Model", "models/export/ssd.onnx", None, file_size),
        Artifact("torchscript", "Model", "models/export/ssd.torchscript.pt", None, file_size),
        Artifact("comparison", "Metrics", "reports/export.json", None, figures),
    ],
    "report": [Artifact("pictures", "HTML", "reports/index.html")],
}
"""By stage; one that is not named has none."""
