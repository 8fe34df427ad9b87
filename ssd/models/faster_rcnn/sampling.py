"""Which anchors and which proposals are positive, which are background, and which of them are trained on.

Ren et al., "Faster R-CNN" (NeurIPS 2015), section 3.1.2; thresholds and counts as in torchvision.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.boxes import pairwise_iou
from ssd.matching import with_a_column
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.structures import Targets

MAX_PAIRS = 2**25
"""Of objects and boxes at once: a matrix of their IoUs has 128 MiB. At 800 pixels there are 160 000 anchors,
so those of a batch with hundreds of objects in an image would fill a GPU."""


@dataclass(frozen=True)
class Assignment:
    """The objects of boxes.

    objects: int64 [B, N], column of the object in the targets, arbitrary where not positive; positive,
    negative: bool [B, N]; a box that is neither has a middling IoU with an object, or lies on an ignored one.
    """

    objects: Tensor
    positive: Tensor
    negative: Tensor

    def rows(self, images: slice) -> "Assignment":
        """Those of some images; views, no copies."""
        return Assignment(self.objects[images], self.positive[images], self.negative[images])


@dataclass(frozen=True)
class RoIMatches:
    """What the training of a batch needs besides its images.

    anchors: their assignment; targets: the ground truth, M at least 1; anchor_keys: float32 [B, A], random in
    [0, 1), proposal_keys: float32 [B, N + M], the same for proposals and ground truth: the largest are
    sampled; both None where nothing is sampled.
    """

    anchors: Assignment
    targets: Targets
    anchor_keys: Tensor | None = None
    proposal_keys: Tensor | None = None

    @property
    def divisor(self) -> Tensor:
        """What the losses are divided by, summed over a step: the number of images, an int64 scalar."""
        return torch.full((), len(self.targets.labels), device=self.targets.labels.device)

    def rows(self, images: slice) -> "RoIMatches":
        """The matches of some images of the batch; views, no copies."""
        keys = (k if k is None else k[images] for k in (self.anchor_keys, self.proposal_keys))
        return RoIMatches(self.anchors.rows(images), self.targets.rows(images), *keys)


def assign(
    targets: Targets, boxes: Tensor, positive_iou: float, negative_iou: float, *, low_quality: bool = False
) -> Assignment:
    """Assign each box to the object with the highest IoU, with static shapes.

    Args:
        targets: the ground truth.
        boxes: float32 [N, 4] or [B, N, 4], xyxy, normalised.
        positive_iou: a box is positive from this IoU on.
        negative_iou: a box is background below this IoU with every object, ignored ones too.
        low_quality: the boxes with the highest IoU of an object are positive, too, whatever it is; of several
            objects they keep the one with the highest IoU, as in torchvision.
    """
    targets = with_a_column(targets)
    num_images, num_objects = targets.labels.shape
    step = max(1, MAX_PAIRS // (num_objects * boxes.shape[-2]))
    parts = []
    for start in range(0, num_images, step):
        images = slice(start, start + step)
        own = boxes if boxes.dim() == 2 else boxes[images]
        parts.append(_assign(targets.rows(images), own, positive_iou, negative_iou, low_quality))
    return Assignment(
        torch.cat([part.objects for part in parts]),
        torch.cat([part.positive for part in parts]),
        torch.cat([part.negative for part in parts]),
    )


def _assign(
    targets: Targets, boxes: Tensor, positive_iou: float, negative_iou: float, low_quality: bool
) -> Assignment:
    """`assign` of some images at once."""
    wanted = (targets.labels > 0) & ~targets.ignored
    iou = pairwise_iou(targets.boxes, boxes)
    ignored_iou = iou.masked_fill(~targets.ignored[..., None], -1).amax(dim=1)
    iou = iou.masked_fill_(~wanted[..., None], -1)
    best_iou, objects = iou.max(dim=1)
    positive = best_iou >= positive_iou
    if low_quality:
        best_of_object = iou.amax(dim=2, keepdim=True)
        positive = positive | ((iou == best_of_object) & (best_of_object > 0)).any(dim=1)
    negative = (torch.maximum(best_iou, ignored_iou) < negative_iou) & ~positive
    return Assignment(objects, positive, negative)


def sample(positive: Tensor, negative: Tensor, keys: Tensor, num_samples: int, fraction: float) -> Tensor:
    """Sample boxes of each image: at most a fraction of positives, filled up with background.

    Args:
        positive, negative: bool [B, N], disjoint.
        keys: float32 [B, N], not negative; the largest are taken.
        num_samples: per image, as far as there are so many.
        fraction: the largest of positives.

    Returns:
        bool [B, N].
    """
    most = min(num_samples, keys.shape[1])
    chosen = _largest(keys, positive, positive.sum(1).clamp(max=int(num_samples * fraction)), most)
    return chosen | _largest(keys, negative, num_samples - chosen.sum(1), most)


def expected_sample(positive: Tensor, negative: Tensor, num_samples: int, fraction: float) -> Tensor:
    """The probability of each box to be in a `sample` with random keys: float32 [B, N]."""
    num_positive = positive.sum(1, keepdim=True)
    num_negative = negative.sum(1, keepdim=True)
    taken = num_positive.clamp(max=int(num_samples * fraction))
    filled = torch.minimum(num_negative, num_samples - taken)
    return positive * (taken / num_positive.clamp(min=1)) + negative * (filled / num_negative.clamp(min=1))


def sample_proposals(
    proposals: Tensor, valid: Tensor, matches: RoIMatches, config: FasterRCNNConfig
) -> tuple[Tensor, Tensor]:
    """The proposals that the second stage is trained on; the ground truth is added to them before.

    Args:
        proposals: float32 [B, N, 4], xyxy, normalised; valid: bool [B, N].
        matches: of the same images, with keys.

    Returns:
        float32 [B, R, 4]; bool [B, R], which of them were sampled; R is `roi_samples` at most.
    """
    targets, keys = matches.targets, matches.proposal_keys
    assert keys is not None, "matched with a key"
    boxes = torch.cat([proposals, targets.boxes], dim=1)
    valid = torch.cat([valid, (targets.labels > 0) & ~targets.ignored], dim=1)
    found = assign(targets, boxes, config.roi_iou, config.roi_iou)
    chosen = sample(
        found.positive & valid,
        found.negative & valid,
        keys[:, : boxes.shape[1]],
        config.roi_samples,
        config.roi_positives,
    )
    taken, index = chosen.float().topk(min(config.roi_samples, boxes.shape[1]), dim=1)
    return boxes.gather(1, index[..., None].expand(-1, -1, 4)), taken > 0


def _largest(keys: Tensor, mask: Tensor, numbers: Tensor, most: int) -> Tensor:
    """The `numbers` [B] largest keys of each row within a mask, each number up to `most`: bool [B, N]."""
    order = keys.masked_fill(~mask, -1).topk(most, dim=1).indices
    first = torch.arange(most, device=order.device) < numbers[:, None]
    return torch.zeros_like(mask).scatter(1, order, first) & mask
