"""What the train stage tells: lines for the terminal, tables and pictures in reports/train, MLflow."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure

from ssd.data.augment import Photometry, distort
from ssd.data.batches import SampleKey
from ssd.data.dataset import DetectionDataset
from ssd.data.seeding import seeded
from ssd.data.tensors import Objects, TensorFile
from ssd.files import sha256, write_bytes
from ssd.models.saved import save_model
from ssd.models.ssd import SSDConfig
from ssd.plots import augmented_grid, history_figure, save_figure
from ssd.tracking import MODEL_TAG, Run
from ssd.training.history import Epoch, history_tsv
from ssd.training.loop import TrainResult

MODEL = Path("models/model.pt")
REPORTS = Path("reports/train")
NUM_AUGMENTED = 12


def log_data(run: Run, *files: TensorFile) -> None:
    """What was trained on: digests and counts."""
    digests = {f"data_sha256_{file.path.stem}": sha256(file.path) for file in files}
    run.tags({**digests, "classes": json.dumps(files[0].class_names)})
    run.metrics({f"data/{file.path.stem}_images": len(file) for file in files})


def augmented_figure(dataset: DetectionDataset, photometry: Photometry, class_names: list[str]) -> Figure:
    """The first training images as the network sees them, with their boxes."""
    keys = [SampleKey(0, index, dataset.side) for index in range(min(NUM_AUGMENTED, len(dataset)))]
    samples = [dataset[key] for key in keys]
    images = torch.stack([image for image, _, _ in samples]).float()
    images = distort(images, photometry, seeded("colour", dataset.seed, 0, 0, 0)).round().to(torch.uint8)
    objects = [Objects(o.boxes * dataset.side, o.labels, o.ignored) for _, o, _ in samples]
    return augmented_grid(list(images), objects, class_names)


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
