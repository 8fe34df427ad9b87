"""Inference over a whole split: detections in pixels, and the loss of the same pass."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ssd.hardware import Hardware
from ssd.loading.batch_augment import normalise
from ssd.loading.dataset import DetectionDataset, Sample
from ssd.models.family import Criterion, Model, Processor
from ssd.processes.world import World
from ssd.structures import Detections


@dataclass(frozen=True)
class SplitResult:
    """Detections and losses of a network on a split.

    detections: one per image, in the order of the tensor file; loss, loc_loss, conf_loss: sums over the
    split, divided as those of a training step, by its number of positives or of images, at least 1; seconds:
    of the whole pass in this process, with loading.
    """

    detections: list[Detections]
    loss: float
    loc_loss: float
    conf_loss: float
    seconds: float

    @property
    def losses(self) -> tuple[float, float, float]:
        """Total, loc and conf."""
        return self.loss, self.loc_loss, self.conf_loss


@torch.inference_mode()
def run_split(
    model: Model,
    criterion: Criterion,
    postprocessor: Processor,
    loader: DataLoader[Sample],
    hardware: Hardware,
    *,
    world: World = World(),  # noqa: B008 (frozen)
    on_batch: Callable[[], None] = lambda: None,
) -> SplitResult:
    """Run `model` over every image of a split once, in eval mode (its mode is restored afterwards).

    Several processes share the images; each gets the whole result, which does not depend on their number.

    Args:
        model, criterion, postprocessor: on `hardware.device`, the same in every process.
        loader: the split, not augmented; in each process its own part of the batches.
        hardware: device and precision.
        world: the processes that share the split.
        on_batch: called after each batch.
    """
    began = time.perf_counter()
    file = cast(DetectionDataset, loader.dataset).file
    # Only the sums over the split are divided, so that the loss does not depend on the batch size.
    undivided = torch.ones((), device=hardware.device)
    sums = torch.zeros(4, dtype=torch.float64, device=hardware.device)
    detections: dict[int, Detections] = {}
    training = model.training
    model.eval()
    for batch in tqdm(
        loader, "evaluating", unit="batch", leave=False, disable=None if world.is_main else True
    ):
        images = normalise(batch.images.to(hardware.device, non_blocking=True))
        with hardware.autocast():
            outputs = model(images)
        matches = criterion.match(batch.targets.to(hardware.device))
        losses = criterion(*outputs, matches, undivided)
        sums += torch.stack([losses.total, losses.loc, losses.conf, matches.divisor])
        found = to_pixels(postprocessor(*outputs), file.sizes[batch.indices])
        detections.update(zip(batch.indices, found, strict=True))
        on_batch()
    model.train(training)
    *totals, divisor = world.sum_(sums).tolist()
    loss, loc_loss, conf_loss = (total / max(divisor, 1) for total in totals)
    gathered = gather_detections(detections, len(file), world)
    return SplitResult(gathered, loss, loc_loss, conf_loss, time.perf_counter() - began)


def to_pixels(outputs: tuple[Tensor, Tensor, Tensor, Tensor], sizes: Tensor) -> list[Detections]:
    """The outputs of the post-processor per image, scaled to (height, width) `sizes` [B, 2] in pixels."""
    boxes, scores, labels, num_detections = (x.cpu() for x in outputs)
    return Detections.split(boxes * sizes.flip(-1).repeat(1, 2)[:, None], scores, labels, num_detections)


def gather_detections(own: dict[int, Detections], num_images: int, world: World) -> list[Detections]:
    """The detections of all processes, one per image 0..num_images-1, on every process.

    Args:
        own: those of this process, by index of the image; together the processes cover every image.
        num_images: of the split.
        world: the processes.
    """
    # One tensor per field: pickling a slice would include the storage of its whole batch.
    counts = [len(item.scores) for item in own.values()]
    boxes = torch.cat([torch.zeros(0, 4), *(item.boxes for item in own.values())])
    scores = torch.cat([torch.zeros(0), *(item.scores for item in own.values())])
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *(item.labels for item in own.values())])
    everyone: dict[int, Detections] = {}
    for indices, sizes, *fields in world.gather((list(own), counts, boxes, scores, labels)):
        split = (torch.split(field, sizes) for field in fields)
        everyone.update(zip(indices, map(Detections, *split), strict=True))
    return [everyone[index] for index in range(num_images)]
