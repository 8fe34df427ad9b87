"""Training throughput on a GPU with real images, from the bytes on disk to the updated weights."""

import logging
import tempfile
from pathlib import Path
from statistics import median

import torch

from benchmarks.input_pipeline import SHAPES_SIDE, STRENGTHS, augment_params, shapes_sample
from benchmarks.results import Candidate, Result, Row, make_result
from benchmarks.torchvision_ssd import SIDE, our_model
from benchmarks.training_step import train_params
from ssd.hardware import choose_hardware, choose_kernels
from ssd.loading.tensor_file import TensorFile
from ssd.parallel import num_cores, ordered_map
from ssd.source.glyphs import GLYPHS
from ssd.tensor_writer import write_tensor_file
from ssd.training.history import Epoch
from ssd.training.loop import Trainer

BACKBONE = "resnet50"
BATCH_SIZES = (64, 128, 256)
NUM_IMAGES = 16384  # an epoch of seconds, so that its start-up time is negligible
EPOCHS = 4  # the first, in which kernels are chosen and workers start, is not counted
AIM_IMAGES_PER_S, AIM_WAIT = 4000, 0.05
AIM_GPU = "H200"


def run() -> Result:
    """Train on drawn images at each batch size; throughput and data wait are the trainer's own figures."""
    workers = num_cores()
    candidates: dict[str, Candidate] = {}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        train_file, val_file = draw_files(Path(folder), NUM_IMAGES)
        for batch_size in BATCH_SIZES:
            epochs, peak_mib = train(train_file, val_file, batch_size, workers)
            candidates[f"batch_{batch_size}"] = Candidate([epoch.seconds for epoch in epochs], peak_mib)
            rows.append(row(epochs, batch_size, peak_mib, has_aim=AIM_GPU in torch.cuda.get_device_name()))
    settings = {
        "backbone": BACKBONE,
        "input side": SIDE,
        "images": NUM_IMAGES,
        "longer side": SHAPES_SIDE,
        "precision": "bf16",
        "compile": True,
        "cache": "ram",
        "workers": workers,
    }
    return make_result("gpu_training", settings, candidates, rows)


def draw_files(folder: Path, num_images: int) -> tuple[TensorFile, TensorFile]:
    """Scenes to train on, and an empty file to validate on."""
    samples = list(ordered_map(shapes_sample, range(num_images), workers=0, description="drawing"))
    write_tensor_file(folder / "train.safetensors", samples, GLYPHS)
    write_tensor_file(folder / "val.safetensors", [], GLYPHS)
    return TensorFile(folder / "train.safetensors"), TensorFile(folder / "val.safetensors")


def train(
    train_file: TensorFile, val_file: TensorFile, batch_size: int, workers: int, *, backbone: str = BACKBONE
) -> tuple[list[Epoch], float]:
    """The epochs after the first, and the peak of the GPU's memory in MiB."""
    logging.getLogger("ssd").setLevel(logging.ERROR)
    params = train_params(
        device="auto", compile=True, cache="ram", epochs=EPOCHS, batch_size=batch_size, workers=workers
    )
    hardware = choose_hardware(params.device, params.precision)
    choose_kernels(hardware.device, deterministic=False)
    if hardware.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model = our_model(backbone, len(GLYPHS) + 1)
    trainer = Trainer(model, train_file, val_file, params, augment_params(**STRENGTHS), hardware)
    trainer.run(folder=None)
    peak = torch.cuda.max_memory_allocated() if hardware.device.type == "cuda" else 0
    return trainer.progress.history[1:], peak / 2**20


def row(epochs: list[Epoch], batch_size: int, peak_mib: float, *, has_aim: bool) -> Row:
    """A row of medians over the epochs; the aim is set for one GPU model."""
    speed = median(epoch.images_per_s for epoch in epochs)
    wait = median(epoch.data_wait for epoch in epochs)
    return Row(
        what=f"training on a GPU, {BACKBONE}, {SIDE} pixels, bf16, batch {batch_size}, real images",
        unit="images/s",
        ours=speed,
        aim=f"{AIM_IMAGES_PER_S} images/s, wait under {AIM_WAIT:.0%}" if has_aim else None,
        met=speed >= AIM_IMAGES_PER_S and wait < AIM_WAIT if has_aim else None,
        ours_mib=peak_mib,
        notes=f"{wait:.1%} of the time waiting for data",
    )
