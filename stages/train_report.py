"""What the train stage tells: lines for the terminal, tables and pictures in reports/train, MLflow."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ssd.files import sha256, write_bytes, write_json
from ssd.loading.batch_augment import distort
from ssd.loading.dataset import DetectionDataset, SampleKey
from ssd.loading.tensor_file import TensorFile
from ssd.models.config import SSDConfig
from ssd.models.kmeans_priors import PAPER_SCALES, prior_fit
from ssd.models.priors import make_priors, paper_levels
from ssd.models.saved import save_model
from ssd.models.ssd import SSD
from ssd.params import AugmentParams
from ssd.plots.augmentation import AugmentedImage, Version, augmented_page
from ssd.plots.figures import history_figure, save_figure
from ssd.plots.priors import prior_figure
from ssd.seeding import seeded
from ssd.structures import Objects
from ssd.tracking import MODEL_TAG, Run
from ssd.training.loop import TrainResult
from ssd.training.progress import Epoch, history_tsv

MODEL = Path("models/model.pt")
REPORTS = Path("reports/train")
AUGMENTED = Path("reports/preprocess/augmented.png")
NUM_AUGMENTED = 6
NUM_VERSIONS = 4
NO_MEAN, NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def log_data(run: Run, *files: TensorFile) -> None:
    """What was trained on: digests and counts."""
    digests = {f"data_sha256_{file.path.stem}": sha256(file.path) for file in files}
    run.tags({**digests, "classes": json.dumps(files[0].class_names)})
    run.metrics({f"data/{file.path.stem}_images": len(file) for file in files})


def augmented_figure(dataset: DetectionDataset, augment: AugmentParams, class_names: list[str]) -> Figure:
    """Some training images, and what the network sees of each in the first epochs, but for mixup."""
    rows = []
    for index in range(0, len(dataset), max(len(dataset) // NUM_AUGMENTED, 1))[:NUM_AUGMENTED]:
        samples = [dataset[SampleKey(epoch, index, dataset.side)] for epoch in range(NUM_VERSIONS)]
        images = torch.stack([sample.image for sample in samples])
        if augment.policy != "none":
            generator = seeded("colour", dataset.seed, 0, index, 0)
            images = distort(images, augment, generator, NO_MEAN, NO_STD).round().to(torch.uint8)
        versions = [
            Version(image, Objects(t.boxes * dataset.side, t.labels, t.ignored), sample.view)
            for image, sample in zip(images, samples, strict=True)
            for t in [sample.target]
        ]
        rows.append(AugmentedImage(*dataset.part(index), versions))
    return augmented_page(rows, class_names, f"Augmentation, policy {augment.policy}")


def report_priors(model: SSD, boxes: Tensor, clustered: bool, run: Run) -> None:
    """How well the priors cover the training boxes (xyxy, shares of the image), beside the paper's table.

    Args:
        clustered: whether they come from k-means: then the picture shows the paper's table, too.
    """
    levels, sizes = model.config.levels, boxes[:, 2:] - boxes[:, :2]
    paper = paper_levels(len(levels), *PAPER_SCALES)
    map_sizes = [(side, side) for side in model.map_sides_at(model.config.input_size)]
    fit_paper, fit = prior_fit(make_priors(map_sizes, paper), boxes), prior_fit(model.priors, boxes)
    content = {
        "paper": asdict(fit_paper),
        "model": asdict(fit),
        "levels": [asdict(level) for level in levels],
    }
    write_json(REPORTS / "priors.json", content)
    if clustered:
        figure = prior_figure(sizes, paper, levels, fit_paper, fit)
    else:
        figure = prior_figure(sizes, levels, None, fit, None)
    save_figure(figure, REPORTS / "priors.png")
    values = {"priors/mean_best_iou": fit.mean_best_iou, "priors/recall50": fit.recall50}
    run.metrics({key: value for key, value in values.items() if value is not None})


def line_of(epoch: Epoch) -> str:
    """An epoch for the terminal."""
    map50 = "" if epoch.val_map50 is None else f"  val mAP@0.5 {epoch.val_map50:.3f}"
    speed = f"{epoch.images_per_s:.0f} images/s, {epoch.data_wait:.0%} waiting for data"
    return f"epoch {epoch.epoch:3d}  loss {epoch.train_loss:.3f}{map50}  {speed}"


def write_history(history: list[Epoch]) -> None:
    """The table of all epochs so far."""
    write_bytes(REPORTS / "history.tsv", history_tsv(history).encode())


def log_epoch(epoch: Epoch, run: Run) -> None:
    """An epoch's losses, scores and speed."""
    values = {key.replace("_", "/", 1): value for key, value in asdict(epoch).items()}
    groups = ("train/", "val/")
    run.metrics({key: value for key, value in values.items() if key.startswith(groups)}, step=epoch.epoch)
    speeds = {"lr": epoch.lr, "speed/images_per_s": epoch.images_per_s, "speed/data_wait": epoch.data_wait}
    run.metrics(speeds, step=epoch.epoch)


def write_result(result: TrainResult, config: SSDConfig, class_names: list[str], run: Run) -> None:
    """The model file, the last pictures, and what MLflow is to know of them."""
    save_model(MODEL, result.weights, config, class_names)
    save_figure(history_figure([asdict(epoch) for epoch in result.history]), REPORTS / "history.png")
    run.tags({MODEL_TAG: sha256(MODEL)})
    run.metrics({"best/epoch": result.best_epoch, "best/score": result.best_score})
    run.file(MODEL, "model")
    run.file(REPORTS, "train")
