"""Stage 3: train on the tensor files; writes models/model.pt and reports/train."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from matplotlib.figure import Figure

from ssd.data.augment import Geometry, Photometry, distort
from ssd.data.dataset import DetectionDataset
from ssd.data.seeding import seeded
from ssd.data.tensors import Objects, TensorFile
from ssd.files import sha256, write_bytes
from ssd.hardware import choose_hardware
from ssd.models.backbones import load_backbone_weights
from ssd.models.saved import save_model
from ssd.models.ssd import SSD, SSDConfig
from ssd.params import AugmentParams, ModelParams, Params
from ssd.plots import augmented_grid, history_figure, save_figure
from ssd.tracking import MODEL_TAG, Run, flatten
from ssd.training.history import history_tsv
from ssd.training.loop import Epoch, Trainer
from stages.command import command, resolve_weights, workspace
from stages.run import stage_run

REPORTS = Path("reports/train")
NUM_AUGMENTED = 12


@command
def main(params: Params) -> None:
    train_file, val_file = (TensorFile(f"data/tensors/{split}.safetensors") for split in ("train", "val"))
    class_names = train_file.class_names
    hardware = choose_hardware(params.train.device, params.train.precision)
    geometry, photometry = augmentation(params.augment)
    torch.manual_seed(params.train.seed)
    model = build_model(params.model, len(class_names))
    name = f"{params.data.source} {params.model.backbone}-{params.model.input_size} lr={params.train.lr:g}"
    with stage_run(params, "train", sections={"model", "augment", "train"}, name=name) as run:
        run.params(flatten(params.model_dump(exclude={"tracking"})))
        log_data(run, train_file, val_file)
        pictures = DetectionDataset(train_file, params.model.input_size, geometry, params.train.seed)
        save_figure(augmented_figure(pictures, photometry, class_names), REPORTS / "augmented.png")

        trainer = Trainer(model, train_file, val_file, params.train, geometry, photometry, hardware)
        print(f"training on {hardware.device}, {hardware.dtype}, {len(train_file)} images", flush=True)
        result = trainer.run(
            on_epoch=lambda epoch: report(epoch, trainer.history, run),
            on_step=lambda step, loss, lr: run.metrics({"step/loss": loss, "step/lr": lr}, step=step),
        )

        save_model("models/model.pt", result.weights, model.config, class_names)
        save_figure(history_figure([asdict(epoch) for epoch in result.history]), REPORTS / "history.png")
        run.tags({MODEL_TAG: sha256("models/model.pt")})
        run.metrics({"best/epoch": result.best_epoch, "best/val_map50": result.best_map50})
        run.file("models/model.pt", "model")
        run.file(REPORTS, "train")


def augmentation(params: AugmentParams) -> tuple[Geometry, Photometry]:
    """The two halves of the `augment` section."""
    geometry = Geometry(params.flip, params.zoom_out, params.zoom_max, params.crop)
    strengths = (params.brightness, params.contrast, params.saturation, params.hue)
    return geometry, Photometry(params.photometric, *strengths)


def build_model(params: ModelParams, num_object_classes: int) -> SSD:
    """A network by the `model` section, with its starting weights; background is one class more."""
    scales = (params.scale_first, params.scale_second, params.scale_last)
    model = SSD(SSDConfig(params.backbone, params.input_size, num_object_classes + 1, *scales))
    load_backbone_weights(model.backbone, params.backbone, resolve_weights(params.weights, workspace()))
    return model


def log_data(run: Run, *files: TensorFile) -> None:
    """What was trained on: digests and counts."""
    digests = {f"data_sha256_{file.path.stem}": sha256(file.path) for file in files}
    run.tags({**digests, "classes": json.dumps(files[0].class_names)})
    run.metrics({f"data/{file.path.stem}_images": len(file) for file in files})


def augmented_figure(dataset: DetectionDataset, photometry: Photometry, class_names: list[str]) -> Figure:
    """The first training images as the network sees them, with their boxes."""
    samples = [dataset[0, index] for index in range(min(NUM_AUGMENTED, len(dataset)))]
    images = torch.stack([image for image, _, _ in samples]).float()
    images = distort(images, photometry, seeded("colour", dataset.seed, 0, 0)).round().to(torch.uint8)
    objects = [Objects(o.boxes * dataset.side, o.labels, o.ignored) for _, o, _ in samples]
    return augmented_grid(list(images), objects, class_names)


def report(epoch: Epoch, history: list[Epoch], run: Run) -> None:
    """Say, write and log an epoch that has ended."""
    map50 = "" if epoch.val_map50 is None else f"  val mAP@0.5 {epoch.val_map50:.3f}"
    speed = f"{epoch.images_per_s:.0f} images/s, {epoch.data_wait:.0%} waiting for data"
    print(f"epoch {epoch.epoch:3d}  loss {epoch.train_loss:.3f}{map50}  {speed}", flush=True)
    write_bytes(REPORTS / "history.tsv", history_tsv(history).encode())
    values = {key.replace("_", "/", 1): value for key, value in asdict(epoch).items()}
    groups = ("train/", "val/")
    run.metrics({key: value for key, value in values.items() if key.startswith(groups)}, step=epoch.epoch)
    speeds = {"lr": epoch.lr, "speed/images_per_s": epoch.images_per_s, "speed/data_wait": epoch.data_wait}
    run.metrics(speeds, step=epoch.epoch)


if __name__ == "__main__":
    main()
