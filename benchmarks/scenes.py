"""Synthetic objects, network outputs and detections: the inputs of the benchmarks without images."""

import torch
from torch import Generator, Tensor, nn

from ssd.boxes import cxcywh_to_xyxy, encode, pairwise_iou
from ssd.detector import Detector
from ssd.models.ssd import SSD
from ssd.postprocess import PostProcessSettings
from ssd.structures import Detections, Objects, Targets


def random_targets(batch_size: int, num_classes: int, generator: Generator, most: int = 6) -> Targets:
    """One to `most` objects per image, with sides of 0.1 to 0.6, normalised; num_classes with background."""
    counts = torch.randint(1, most + 1, (batch_size,), generator=generator)
    used = torch.arange(most) < counts[:, None]
    size = 0.1 + 0.5 * torch.rand(batch_size, most, 2, generator=generator)
    corner = torch.rand(batch_size, most, 2, generator=generator) * (1 - size)
    labels = torch.randint(1, num_classes, (batch_size, most), generator=generator)
    boxes = torch.cat([corner, corner + size], dim=-1)
    return Targets(boxes * used[..., None], labels * used, torch.zeros_like(used))


def trained_outputs(
    targets: Targets, priors: Tensor, num_classes: int, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Offsets [B, P, 4] and logits [B, P, C] like those of a trained network for images with these objects.

    Priors that overlap an object have its box as offsets, a logit of its class that increases with the IoU,
    and smaller logits of the classes it is confused with; almost all others have confident background.
    Everything has noise.
    """
    batch_size, num_priors = len(targets.labels), len(priors)
    overlap, best = pairwise_iou(targets.boxes, cxcywh_to_xyxy(priors)).max(dim=1)
    boxes = targets.boxes.gather(1, best[..., None].expand(-1, -1, 4))
    labels = targets.labels.gather(1, best)
    near = overlap > 0.3
    loc = torch.where(near[..., None], encode(boxes, priors), torch.zeros(()))
    loc += 0.3 * torch.randn(batch_size, num_priors, 4, generator=generator)
    logits = torch.randn(batch_size, num_priors, num_classes, generator=generator)
    logits[..., 0] += 9
    belief = (near * (20 * overlap - 2))[..., None]
    logits.scatter_add_(2, labels[..., None], belief)
    confusion = torch.randn(num_classes, num_classes, generator=generator)
    logits += 0.3 * belief * confusion[labels]
    return loc, logits


@torch.inference_mode()
def bias_to_background(model: SSD, image: Tensor, num_candidates: int) -> None:
    """Make the scores of an untrained network, in eval mode, as few and as varied as those of a trained one.

    Args:
        model: gets larger weights of the class heads, and a larger bias of background.
        image: uint8 [1, 3, H, W].
        num_candidates: scores above the paper's threshold for this image.
    """
    settings = PostProcessSettings()
    heads = [head for head in model.heads.conf if isinstance(head, nn.Conv2d)]
    for head in heads:
        head.weight *= 4
    _, logits = Detector(model, settings).raw_outputs(image)
    more = background_bias(logits, settings.score_threshold, num_candidates)
    for head in heads:
        assert head.bias is not None
        head.bias.view(-1, model.num_classes)[:, 0] += more


def background_bias(logits: Tensor, threshold: float, num_candidates: int) -> float:
    """What to add to the logits of background, [..., 0], for so many scores of objects above a threshold."""
    low, high = 0.0, 100.0
    for _ in range(20):
        middle = (low + high) / 2
        shifted = torch.cat([logits[..., :1] + middle, logits[..., 1:]], dim=-1)
        too_many = (shifted.softmax(-1)[..., 1:] > threshold).sum() > num_candidates
        low, high = (middle, high) if too_many else (low, middle)
    return high


def random_detections(
    num_images: int, num_classes: int, num_detections: int, generator: Generator
) -> tuple[list[Detections], list[Objects]]:
    """At most five objects per image, one in ten ignored; half of the detections near one."""
    pairs = [_image(num_classes, num_detections, generator) for _ in range(num_images)]
    return [found for found, _ in pairs], [truth for _, truth in pairs]


def _image(num_classes: int, num_detections: int, generator: Generator) -> tuple[Detections, Objects]:
    num_objects = int(torch.randint(6, (), generator=generator))
    objects = Objects(
        _boxes(num_objects, generator),
        torch.randint(1, num_classes + 1, (num_objects,), generator=generator),
        torch.rand(num_objects, generator=generator) < 0.1,
    )
    boxes = _boxes(num_detections, generator)
    labels = torch.randint(1, num_classes + 1, (num_detections,), generator=generator)
    if num_objects:
        near = torch.rand(num_detections, generator=generator) < 0.5
        same_class = near & (torch.rand(num_detections, generator=generator) < 0.8)
        index = torch.randint(num_objects, (num_detections,), generator=generator)
        shifted = objects.boxes[index] + 6 * torch.randn(num_detections, 4, generator=generator)
        shifted[:, 2:] = torch.maximum(shifted[:, 2:], shifted[:, :2] + 1)
        boxes = torch.where(near[:, None], shifted, boxes)
        labels = torch.where(same_class, objects.labels[index], labels)
    scores = torch.rand(num_detections, generator=generator).sort(descending=True).values
    return Detections(boxes, scores, labels), objects


def _boxes(num_boxes: int, generator: Generator) -> Tensor:
    corner = 400 * torch.rand(num_boxes, 2, generator=generator)
    size = 20 + 130 * torch.rand(num_boxes, 2, generator=generator)
    return torch.cat([corner, corner + size], dim=1)
