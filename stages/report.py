"""Stage 6: draw what the other stages wrote, as reports/*.png, and put it on one page, reports/index.html.

Nothing depends on it.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ssd.detections_file import read_detections
from ssd.errors import UserError
from ssd.files import write_bytes
from ssd.loading.batch_augment import distort
from ssd.loading.dataset import DetectionDataset, SampleKey
from ssd.loading.tensor_file import TensorFile
from ssd.metrics.outcomes import Outcomes, outcomes
from ssd.metrics.voc import judge_detections
from ssd.models.kmeans_priors import PriorFit
from ssd.models.priors import PriorLevel
from ssd.params import AugmentParams, Params
from ssd.plots.augmentation import AugmentedImage, Version, augmented_page
from ssd.plots.confusion import confusion_figure
from ssd.plots.detections import detection_figure
from ssd.plots.figures import PrecisionRecall, history_figure, precision_recall_figure, save_figure
from ssd.plots.page import run_page
from ssd.plots.pictures import spread
from ssd.plots.priors import prior_figure
from ssd.seeding import seeded
from ssd.structures import Objects
from stages.command import command
from stages.run import stage_run

REPORTS = Path("reports")
PAGE = REPORTS / "index.html"
MODEL = Path("models/model.pt")
NUM_AUGMENTED, NUM_VERSIONS = 6, 4
NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@command
def main(params: Params) -> None:
    tensors, difficult = Path("data/tensors"), params.train.train_on_difficult
    train_file = TensorFile(tensors / "train", train_on_difficult=difficult)
    test_file = TensorFile(tensors / "test")
    metrics = read_json(REPORTS / "metrics.json")
    data = DetectionDataset(train_file, params.model.input_size, params.augment, params.train.seed)
    found = judged_test_split(test_file, metrics["operating_point"]["score"])
    num_pictures = params.report.num_pictures
    figures = {
        "history": history_figure(read_table(REPORTS / "train/history.tsv")),
        "priors": priors_figure(read_json(REPORTS / "train/priors.json"), train_file),
        "augmentation": augmentation_figure(data, params.augment),
        "precision_recall": curves_figure(metrics, REPORTS / "evaluate/class_precision_recall.tsv"),
        "confusion_matrix": matrix_figure(metrics, REPORTS / "evaluate/confusion_matrix.tsv"),
        "detections": drawn_detections(test_file, found, spread(len(test_file), num_pictures)),
        "worst": drawn_detections(test_file, found, worst(found, len(test_file), num_pictures)),
    }
    # Other settings of the report draw the same run again: its pictures are replaced, and it has no child.
    with stage_run(params, "report", sections=set(), model=MODEL) as run:
        for name, figure in figures.items():
            save_figure(figure, REPORTS / f"{name}.png")
            run.file(REPORTS / f"{name}.png", "report")
        write_bytes(PAGE, page_of(params, metrics, list(figures)).encode())
        run.file(PAGE, "report")
        run.file(REPORTS / "preprocess", "preprocess")
    print(f"drawn: {PAGE}, {', '.join(f'{REPORTS}/{name}.png' for name in figures)}")


def page_of(params: Params, metrics: dict[str, Any], pictures: list[str]) -> str:
    """The page of the run, from the pictures that have been written and what the other stages wrote."""
    summary = read_json(REPORTS / "preprocess/summary.json")
    model, train = params.model, params.train
    layout = f", read as {summary['layout']}" if summary["layout"] else ""
    layers = f"; neck: {model.neck}; heads: {model.heads}" if model.family == "ssd" else ""
    setup = {
        "data": f"{params.data.source}{layout}; classes: {len(summary['class_names'])}",
        "images": ", ".join(f"{name} {split['num_images']}" for name, split in summary["splits"].items()),
        "network": f"{model.family} on {model.backbone} at {model.input_size} pixels; "
        f"weights: {model.weights}{layers}",
        "priors": model.priors,
        "augmentation": params.augment.policy,
        "training": f"epochs: {train.epochs}; images a step: {train.batch_size}; {train.optimizer}, "
        f"lr {train.lr:g} ({train.schedule}); seed {train.seed}",
    }
    return run_page(
        title_of(params),
        metrics,
        summary,
        read_json(REPORTS / "preprocess/problems.json")["problems"],
        setup,
        {"model": model.model_dump(), "augment": params.augment.model_dump(), "train": train.model_dump()},
        {name: (REPORTS / f"{name}.png").read_bytes() for name in pictures},
        read_json(REPORTS / "evaluate/ensemble.json") if "ensemble" in metrics else None,
    )


def title_of(params: Params) -> str:
    """As in "voc0712, resnet18 at 300 pixels"; of another family than SSD, with its name."""
    model = params.model
    family = "" if model.family == "ssd" else f"{model.family} on "
    return f"{params.data.source}, {family}{model.backbone} at {model.input_size} pixels"


def read_json(path: Path) -> dict[str, Any]:
    """What another stage wrote.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path}: missing or damaged", path=path)
    return content


def read_table(path: Path) -> list[dict[str, float | None]]:
    """The rows of a table of numbers; None where a cell is empty."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [{key: float(cell) if cell else None for key, cell in row.items()} for row in rows]


def priors_figure(described: dict[str, Any], train_file: TensorFile) -> Figure:
    """Shapes of the priors among those of the training boxes; the paper's table beside those of k-means."""
    boxes = train_file.normalised_boxes()
    sizes = boxes[:, 2:] - boxes[:, :2]
    fit, paper_fit = PriorFit(**described["model"]), PriorFit(**described["paper"])
    levels, paper = (list(map(PriorLevel.from_state, described[key])) for key in ("levels", "paper_levels"))
    if described["kind"] == "kmeans":
        return prior_figure(sizes, paper, levels, paper_fit, fit)
    return prior_figure(sizes, levels, None, fit, None)


def augmentation_figure(dataset: DetectionDataset, augment: AugmentParams) -> Figure:
    """Some training images, and what the network sees of each in the first epochs, but for mixup."""
    rows = []
    for index in range(0, len(dataset), max(len(dataset) // NUM_AUGMENTED, 1))[:NUM_AUGMENTED]:
        samples = [dataset[SampleKey(epoch, index, dataset.side)] for epoch in range(NUM_VERSIONS)]
        images = torch.stack([sample.image for sample in samples])
        if augment.policy != "none":
            generator = seeded("colour", dataset.seed, 0, index, 0)
            images = distort(images, augment, generator, NO_MEAN, NO_STD).round().to(torch.uint8)
        versions = []
        for image, sample in zip(images, samples, strict=True):
            target = sample.target
            objects = Objects(target.boxes * dataset.side, target.labels, target.ignored)
            versions.append(Version(image, objects, sample.view))
        rows.append(AugmentedImage(*dataset.part(index), versions))
    return augmented_page(rows, dataset.file.class_names, f"Augmentation, policy {augment.policy}")


def curves_figure(metrics: dict[str, Any], table: Path) -> Figure:
    """Pascal's precision-recall curve of every class that has objects."""
    points: dict[str, list[tuple[float, float]]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            points.setdefault(row["class"], []).append((float(row["recall"]), float(row["precision"])))
    curves = [
        PrecisionRecall(label, figures["class"], figures["voc_ap_area"], points.get(figures["class"], []))
        for label, figures in enumerate(metrics["per_class"], start=1)
        if figures["voc_ap_area"] is not None
    ]
    return precision_recall_figure(curves, metrics["voc"]["map_area"], 0.5)


def matrix_figure(metrics: dict[str, Any], table: Path) -> Figure:
    """The confusion matrix at the score with the best F1."""
    with table.open(encoding="utf-8", newline="") as file:
        (_, *names, _), *rows = csv.reader(file, delimiter="\t")
    counts = [[int(cell) for cell in row] for _, *row in rows]
    return confusion_figure(counts, names, metrics["operating_point"]["score"])


def judged_test_split(file: TensorFile, score: float) -> Outcomes:
    """The detections that evaluate wrote, against the objects, as in its confusion matrix."""
    detections = read_detections(REPORTS / "evaluate/detections.json", file.image_ids)
    objects = [file.objects(index) for index in range(len(file))]
    return outcomes(judge_detections(detections, objects, len(file.class_names)), score)


def worst(found: Outcomes, num_images: int, num_pictures: int) -> list[int]:
    """Indices of the images with the most errors, the most first; none of images without an error."""
    errors = found.num_errors(num_images)
    order = np.argsort(-errors, kind="stable")[:num_pictures]
    return [index for index in order.tolist() if errors[index]]


def drawn_detections(file: TensorFile, found: Outcomes, chosen: list[int]) -> Figure:
    """Ground truth and detections of some images of the test split, side by side."""
    images = {index: file.image(index) for index in chosen}
    return detection_figure(found, images, file.image_ids, file.class_names)


if __name__ == "__main__":
    main(sys.argv[1:])
