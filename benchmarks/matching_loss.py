"""Matching and loss of a batch, forward and backward, against torchvision's, which loop over images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from benchmarks.harness import Benchmark, Comparison
from benchmarks.scenes import random_targets
from benchmarks.torchvision_ssd import NUM_CLASSES, anchors, as_torchvision, our_model, torchvision_model
from ssd.loss import LossSettings, MultiBoxLoss
from ssd.structures import Targets

BATCH_SIZES = (8, 32)


@dataclass(frozen=True)
class Batch:
    """Raw outputs of a network and its ground truth. loc [B, P, 4], logits [B, P, C]."""

    loc: Tensor
    logits: Tensor
    targets: Targets
    priors: Tensor


def benchmark(batch_sizes: Sequence[int] = BATCH_SIZES) -> Benchmark[dict[int, Batch]]:
    """Ours and torchvision's at each batch size."""

    def candidates(size: int) -> dict[str, Callable[[dict[int, Batch]], Callable[[], float]]]:
        return {
            f"ours_{size}": lambda batches: ours(batches[size]),
            f"torchvision_{size}": lambda batches: torchvisions(batches[size]),
        }

    return Benchmark(
        name="matching_loss",
        settings={
            "priors": 8732,
            "classes": NUM_CLASSES,
            "objects an image": "1 to 6",
            "batch": list(batch_sizes),
        },
        make_inputs=lambda: {size: make_batch(size) for size in batch_sizes},
        candidates={name: build for size in batch_sizes for name, build in candidates(size).items()},
        comparisons=tuple(
            Comparison(
                f"matching and loss, forward and backward, batch {size}",
                f"ours_{size}",
                f"torchvision_{size}",
            )
            for size in batch_sizes
        ),
        agree=agree,
        warmup=5,
        runs=25,
    )


def make_batch(size: int) -> Batch:
    """Targets, and outputs like those of an untrained network."""
    generator = torch.Generator().manual_seed(size)
    priors = our_model("resnet18").priors
    return Batch(
        torch.randn(size, len(priors), 4, generator=generator).requires_grad_(),
        torch.randn(size, len(priors), NUM_CLASSES, generator=generator).requires_grad_(),
        random_targets(size, NUM_CLASSES, generator),
        priors,
    )


def ours(batch: Batch) -> Callable[[], float]:
    # torchvision selects no hard negatives in an image without positives: no minimum here either.
    criterion = MultiBoxLoss(batch.priors, LossSettings(min_negatives=0))

    def step() -> float:
        losses = criterion(batch.loc, batch.logits, criterion.match(batch.targets))
        torch.autograd.grad(losses.total, [batch.loc, batch.logits])
        return float(losses.total.detach())

    return step


def torchvisions(batch: Batch) -> Callable[[], float]:
    """The part of torchvision's `SSD.forward` between the heads and the losses."""
    peer = torchvision_model(our_model("resnet18"))
    boxes = anchors(batch.priors)
    targets = as_torchvision(batch.targets)
    outputs = {"bbox_regression": batch.loc, "cls_logits": batch.logits}

    def step() -> float:
        matched = [peer.proposal_matcher(box_iou(target["boxes"], boxes)) for target in targets]
        losses = peer.compute_loss(targets, outputs, [boxes] * len(targets), matched)
        total = losses["bbox_regression"] + losses["classification"]
        torch.autograd.grad(total, [batch.loc, batch.logits])
        return float(total.detach())

    return step


def agree(losses: Mapping[str, float]) -> None:
    """The same loss within 1 %: two objects with the same best prior are matched differently."""
    for name, loss in losses.items():
        size = name.rpartition("_")[2]
        assert abs(loss / losses[f"ours_{size}"] - 1) < 0.01, losses
