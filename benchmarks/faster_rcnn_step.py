"""A training step of Faster R-CNN on the CPU, from uint8 batch to updated weights, against torchvision's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.harness import Benchmark, Comparison
from benchmarks.input_pipeline import augment_params
from benchmarks.scenes import random_targets
from benchmarks.torchvision_faster_rcnn import NUM_CLASSES, SIDE, State, our_model, torchvision_model
from benchmarks.torchvision_ssd import as_torchvision, training_step
from benchmarks.training_step import LR, train_params
from ssd.hardware import choose_hardware
from ssd.loading.dataset import Batch
from ssd.processes.world import World
from ssd.training.step import TrainStep

BATCH_SIZE = 2


@dataclass(frozen=True)
class Data:
    """A batch of noise with objects, and the weights of torchvision's network that all begin with."""

    batch: Batch
    state: State


def benchmark(side: int = SIDE, batch_size: int = BATCH_SIZE, runs: int = 5) -> Benchmark[Data]:
    """Each precision against the same of torchvision's."""
    what = f"training step, Faster R-CNN, resnet50, {side} pixels, batch {batch_size}"
    step = partial(Comparison, num_images=batch_size, min_ratio=1)
    return Benchmark(
        name="faster_rcnn_step",
        settings={
            "backbone": "resnet50",
            "input side": side,
            "batch": batch_size,
            "classes": NUM_CLASSES,
            "anchors and proposals sampled per image": "256 and 512",
            "ours": "float32, contiguous, fused SGD, gradients clipped",
            "ours_bf16": "bf16 autocast, channels last, fused SGD, gradients clipped",
            "torchvision": "float32, contiguous, SGD",
            "torchvision_bf16": "bf16 autocast, channels last, SGD",
        },
        make_inputs=partial(make_data, side, batch_size),
        candidates={
            "ours": partial(ours, precision="fp32"),
            "torchvision": partial(torchvisions, autocast=None),
            "ours_bf16": partial(ours, precision="bf16"),
            "torchvision_bf16": partial(torchvisions, autocast=torch.bfloat16),
        },
        comparisons=(
            step(f"{what}, both in float32", "ours", "torchvision"),
            step(f"{what}, both in bf16, channels last", "ours_bf16", "torchvision_bf16"),
        ),
        agree=agree,
        runs=runs,
    )


def make_data(side: int, batch_size: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch_size, 3, side, side), generator=generator, dtype=torch.uint8)
    targets = random_targets(batch_size, NUM_CLASSES, generator)
    return Data(Batch(images, targets, list(range(batch_size))), torchvision_model(side).state_dict())


def ours(data: Data, precision: str) -> Callable[[], float]:
    """The step of our trainer; gives the loss."""
    params = train_params(device="cpu", precision=precision, channels_last=precision == "bf16")
    hardware = choose_hardware(params.device, params.precision)
    # Augmentation is part of the input pipeline's benchmark.
    model = our_model(data.batch.images.shape[-1], data.state)
    train = TrainStep(model, params, augment_params(policy="none"), hardware, World())
    return lambda: float(train(data.batch, epoch=0, index=0, lr=LR)[0])


def torchvisions(data: Data, autocast: torch.dtype | None) -> Callable[[], float]:
    memory_format = torch.channels_last if autocast else torch.contiguous_format
    images = data.batch.images
    peer = torchvision_model(images.shape[-1], data.state).to(memory_format=memory_format)
    return training_step(peer, images, as_torchvision(data.batch.targets, images.shape[-1]), autocast)


def agree(losses: Mapping[str, float]) -> None:
    """The same loss, but for what was sampled at random and for bf16."""
    for loss in losses.values():
        assert abs(loss / losses["torchvision"] - 1) < 0.1
