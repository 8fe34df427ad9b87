"""A training step on the CPU, from uint8 batch to updated weights, against torchvision's on the same maps."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Comparison
from benchmarks.input_pipeline import augment_params
from benchmarks.scenes import random_targets
from benchmarks.torchvision_ssd import (
    NUM_CLASSES,
    SIDE,
    as_torchvision,
    our_model,
    torchvision_model,
    training_step,
)
from ssd.hardware import choose_hardware
from ssd.loading.dataset import Batch
from ssd.params import TrainParams, load_params
from ssd.processes.world import World
from ssd.training.step import TrainStep

BACKBONE = "resnet50"
BATCH_SIZE = 8
LR = 0.001


@dataclass(frozen=True)
class Data:
    """A batch of noise with objects; the speed does not depend on the content of the images."""

    batch: Batch


def benchmark(backbone: str = BACKBONE, batch_size: int = BATCH_SIZE, runs: int = 7) -> Benchmark[Data]:
    """Ours in bf16, eager and compiled; torchvision's in float32 as it ships, and in bf16, channels last."""
    what = f"training step, {backbone}, {SIDE} pixels, batch {batch_size}"
    step = partial(Comparison, ours="ours", num_images=batch_size)
    return Benchmark(
        name="training_step",
        settings={
            "backbone": backbone,
            "input side": SIDE,
            "batch": batch_size,
            "classes": NUM_CLASSES,
            "ours": "bf16 autocast, channels last, fused SGD, gradients clipped",
            "torchvision": "float32, contiguous, SGD",
            "torchvision_bf16": "bf16 autocast, channels last, SGD",
        },
        make_inputs=partial(make_data, batch_size),
        candidates={
            "ours": lambda data: ours(data.batch, backbone, compiled=False),
            "ours_compiled": lambda data: ours(data.batch, backbone, compiled=True),
            "torchvision": lambda data: torchvisions(data.batch, backbone, None),
            "torchvision_bf16": lambda data: torchvisions(data.batch, backbone, torch.bfloat16),
        },
        comparisons=(
            step(f"{what}, torchvision as it ships (float32)", peer="torchvision", min_ratio=2),
            step(f"{what}, torchvision in bf16, channels last", peer="torchvision_bf16", min_ratio=1.15),
            Comparison(
                f"{what}, `train.compile: true`, torchvision in bf16, channels last",
                "ours_compiled",
                "torchvision_bf16",
                batch_size,
                memory=False,
            ),
        ),
        runs=runs,
    )


def make_data(batch_size: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch_size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return Data(Batch(images, random_targets(batch_size, NUM_CLASSES, generator), list(range(batch_size))))


def train_params(**changes: object) -> TrainParams:
    """The repository's defaults with SSD's optimiser, bf16, and these changes."""
    values = {"optimizer": "sgd", "lr": LR, "weight_decay": 0.0005, "precision": "bf16", **changes}
    return load_params().train.model_copy(update=values)


def ours(batch: Batch, backbone: str, *, compiled: bool) -> Callable[[], Tensor]:
    """The step of our trainer."""
    params = train_params(device="cpu", compile=compiled)
    hardware = choose_hardware(params.device, params.precision)
    # Augmentation is part of the input pipeline's benchmark.
    augment = augment_params(policy="none")
    train = TrainStep(our_model(backbone), params, augment, hardware, World())
    return lambda: train(batch, epoch=0, index=0, lr=LR)


def torchvisions(batch: Batch, backbone: str, autocast: torch.dtype | None) -> Callable[[], float]:
    memory_format = torch.channels_last if autocast else torch.contiguous_format
    peer = torchvision_model(our_model(backbone), memory_format)
    return training_step(peer, batch.images, as_torchvision(batch.targets), autocast)
