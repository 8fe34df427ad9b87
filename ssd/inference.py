"""Running a network over a whole split: detections in pixels, and the validation loss of the same pass."""

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ssd.data.dataset import DetectionDataset, make_loader, normalise
from ssd.data.tensors import TensorFile
from ssd.hardware import Hardware
from ssd.loss import MultiBoxLoss
from ssd.metrics.detections import Detections
from ssd.models.ssd import SSD
from ssd.postprocess import PostProcessor


@dataclass(frozen=True)
class SplitResult:
    """What a network says of a split.

    detections: one an image, in the order of the tensor file, boxes in pixels; loss, loc_loss,
    conf_loss: means over all positives of the split.
    """

    detections: list[Detections]
    loss: float
    loc_loss: float
    conf_loss: float


@torch.inference_mode()
def run_split(
    model: SSD,
    criterion: MultiBoxLoss,
    postprocessor: PostProcessor,
    file: TensorFile,
    hardware: Hardware,
    *,
    batch_size: int,
    workers: int,
    label: str,
) -> SplitResult:
    """Run `model` (in eval mode, left as it was) over every image of `file` once.

    Args:
        model, criterion, postprocessor: on `hardware.device`.
        file: the split.
        hardware: where, and in which precision.
        batch_size: images.
        workers: data-loading processes.
        label: what the progress bar says.
    """
    dataset = DetectionDataset(file, model.config.input_size)
    pin_memory = hardware.device.type == "cuda"
    loader, _ = make_loader(dataset, batch_size, workers, shuffle=False, pin_memory=pin_memory)
    sums = torch.zeros(4, device=hardware.device)
    detections: list[Detections] = []
    training = model.training
    model.eval()
    for batch in tqdm(loader, desc=label, unit="batch", leave=False, disable=None):
        images = normalise(batch.images.to(hardware.device, non_blocking=True))
        with hardware.autocast():
            loc, logits = model(images)
        losses = criterion(loc, logits, batch.targets.to(hardware.device))
        weight = losses.num_positives.clamp(min=1)
        sums += torch.stack([losses.total, losses.loc, losses.conf, torch.ones_like(losses.total)]) * weight
        detections += to_pixels(postprocessor(loc, logits), file.sizes[batch.indices])
    model.train(training)
    total, loc_loss, conf_loss = (sums[:3] / sums[3].clamp(min=1)).tolist()
    return SplitResult(detections, total, loc_loss, conf_loss)


def to_pixels(outputs: tuple[Tensor, Tensor, Tensor, Tensor], sizes: Tensor) -> list[Detections]:
    """Split what the post-processor gives by image, scaled to (height, width) `sizes` [B, 2] in pixels."""
    boxes, scores, labels, num_detections = (x.cpu() for x in outputs)
    boxes = boxes * sizes.flip(-1).repeat(1, 2)[:, None]
    return [
        Detections(boxes[i, :n], scores[i, :n], labels[i, :n]) for i, n in enumerate(num_detections.tolist())
    ]
