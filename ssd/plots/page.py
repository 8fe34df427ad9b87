"""The page of a run: figures, tables and pictures in one HTML file that loads nothing and runs no script.

The pictures are inside it, because MLflow and Kubeflow show the file without those beside it.
"""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image


class Chart(NamedTuple):
    """A picture's heading, how to read it, and whether it is made of images of the data set."""

    title: str
    reading: str
    has_photos: bool = False


MARKS = (
    "Left of each pair are the objects, right the detections from the score of the operating point on, so "
    "what is wrong here is what the confusion matrix counts. A shaded box is an error: left an object that "
    "was missed, or detected as another class; right a class taken for another, or a false alarm, as is a "
    "second detection of one object. Dashed boxes are difficult or crowd and do not count."
)
CHARTS = {
    "confusion_matrix": Chart(
        "Confusion matrix",
        "A row is what is there, a column what it was detected as, at the score in the title. The diagonal "
        "is right. The last column counts missed objects, the last row false alarms; two classes with high "
        "counts in each other's row are confused with each other.",
    ),
    "precision_recall": Chart(
        "Precision and recall",
        "One curve per class, from its most certain detections on the left to all of them on the right. A "
        "curve that ends early belongs to objects that are not found at any score; one that falls early, to "
        "detections that are certain and wrong. AP is the area under it.",
    ),
    "worst": Chart("Images with the most errors", f"The most errors first. {MARKS}", has_photos=True),
    "detections": Chart("Images spread over the test split", MARKS, has_photos=True),
    "history": Chart(
        "Training",
        "Losses that still fall at the end, and a mAP that still rises, ask for more epochs. A validation "
        "loss that rises while that of training falls is overfitting: fewer epochs, more augmentation or "
        "more images. A dotted line marks the highest mAP@0.5.",
    ),
    "augmentation": Chart(
        "Augmentation",
        "What the network sees of some training images. Boxes should still fit their objects, and the "
        "objects should still be recognisable to you. White frames on the source are the parts that were "
        "taken.",
        has_photos=True,
    ),
    "priors": Chart(
        "Priors",
        "Each grey dot is the size of a training object, each coloured mark the shape of a prior. Objects "
        "far from every mark are hard to learn: model.priors and, of an SSD, the scales beside it move the "
        "marks.",
    ),
}
"""By the name of the picture, in the order of the page."""

SECTIONS = [
    ("figures", "Figures"),
    ("setup", "What was trained"),
    ("classes", "Classes"),
    ("sizes", "Sizes"),
    *((name, chart.title) for name, chart in CHARTS.items()),
    ("data", "Data"),
    ("definitions", "Definitions"),
]
SPLIT_COLUMNS = {
    "images": "num_images",
    "without objects": "num_images_without_objects",
    "objects": "num_objects",
    "difficult": "num_difficult",
    "crowd": "num_crowd",
    "problems": "num_problems",
}
NUM_KINDS = 20
JPEG_QUALITY = 82


def run_page(
    title: str,
    metrics: Mapping[str, Any],
    summary: Mapping[str, Any],
    problems: Sequence[Mapping[str, Any]],
    setup: Mapping[str, object],
    settings: Mapping[str, Mapping[str, object]],
    pictures: Mapping[str, bytes],
    ensemble: Mapping[str, Any] | None = None,
) -> str:
    """The page as HTML.

    Args:
        metrics: the content of reports/metrics.json; summary: of reports/preprocess/summary.json; problems:
            the list in reports/preprocess/problems.json.
        setup: what was trained on what, in words; settings: all of them, by section and key.
        pictures: the bytes of a PNG for each of CHARTS.
        ensemble: the content of reports/evaluate/ensemble.json, where models were fused.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["figure"] = figure
    kinds = problem_kinds(problems)
    return environment.get_template("page.html.j2").render(
        title=title,
        metrics=metrics,
        ensemble=ensemble,
        headline=headline(metrics),
        summary=summary,
        columns=SPLIT_COLUMNS,
        kinds=kinds[:NUM_KINDS],
        num_more_kinds=max(len(kinds) - NUM_KINDS, 0),
        setup=setup,
        settings=settings,
        sections=SECTIONS,
        charts=CHARTS,
        pictures={name: data_uri(pictures[name], chart.has_photos) for name, chart in CHARTS.items()},
    )


def headline(metrics: Mapping[str, Any]) -> list[tuple[str, str, float | None, Sequence[float] | None]]:
    """The figures to see first: name, explanation, value, 95 % interval."""
    coco, point = metrics["coco"], metrics["operating_point"]
    rates = f"precision {figure(point['precision'])}, recall {figure(point['recall'])}"
    return [
        ("mAP@0.5", "IoU 0.50", coco["map50"], coco.get("map50_interval")),
        ("mAP", "IoU 0.50 to 0.95", coco["map"], coco.get("map_interval")),
        ("F1", rates, point["f1"], None),
        ("score", "from which F1 is best: the operating point", point["score"], None),
    ]


def figure(value: float | None) -> str:
    """Three decimals, a zero without a sign; a dash where there is nothing to measure."""
    return "-" if value is None else f"{value:z.3f}"


class ProblemKind(NamedTuple):
    """What was done for a reason, how often, and to which file first."""

    action: str
    reason: str
    number: int
    file: str


def problem_kinds(problems: Sequence[Mapping[str, Any]]) -> list[ProblemKind]:
    """The problems by what was done and why, the most frequent first."""
    counts = Counter((problem["action"], problem["reason"]) for problem in problems)
    first = {(problem["action"], problem["reason"]): problem["file"] for problem in reversed(problems)}
    return [ProblemKind(*kind, number, first[kind]) for kind, number in counts.most_common()]


def data_uri(png: bytes, as_jpeg: bool) -> str:
    """A picture inside the page; as JPEG, which of photographs is a quarter of the PNG."""
    if not as_jpeg:
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    jpeg = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
