"""Which prior answers for which object: SSD's matching, batched (SSD, section 2.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.boxes import pairwise_iou


@dataclass(frozen=True)
class Targets:
    """The objects of a batch, padded to the largest number of objects M of an image.

    boxes: float32 [B, M, 4] xyxy, shares of the image; labels: int64 [B, M], 0 where padded;
    ignored: bool [B, M], objects (difficult, crowd) that are neither to be found nor background.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor

    def to(self, device: torch.device | str) -> "Targets":
        """Copies on `device`, without waiting for pinned memory."""
        moved = (t.to(device, non_blocking=True) for t in (self.boxes, self.labels, self.ignored))
        return Targets(*moved)


@dataclass(frozen=True)
class Matches:
    """The answer for each prior.

    labels: int64 [B, P], 0 where background; boxes: float32 [B, P, 4] xyxy of the matched object (of any
    object where there is none); ignored: bool [B, P], background that must not count as a negative.
    """

    labels: Tensor
    boxes: Tensor
    ignored: Tensor


def match(targets: Targets, priors_xyxy: Tensor, iou_threshold: float) -> Matches:
    """Match priors to objects.

    Every object gets a prior of its own, the best that is free (also when two objects share a best
    one); every other prior takes the object that it overlaps most, if their IoU reaches the threshold.
    Background priors that reach the threshold with an ignored object are ignored.

    Args:
        targets: the objects.
        priors_xyxy: float32 [P, 4], shares of the image.
        iou_threshold: 0.5 in the paper.
    """
    batch_size, num_objects = targets.labels.shape
    num_priors = priors_xyxy.shape[0]
    if num_objects == 0:
        zeros = targets.labels.new_zeros(batch_size, num_priors)
        return Matches(zeros, priors_xyxy.expand(batch_size, -1, -1), zeros.bool())
    wanted = (targets.labels > 0) & ~targets.ignored
    iou = pairwise_iou(targets.boxes, priors_xyxy)
    ignored_iou = iou.masked_fill(~targets.ignored[..., None], -1).amax(dim=1)
    iou = iou.masked_fill_(~wanted[..., None], -1)
    best_iou, best_object = iou.max(dim=1)

    own_prior = claim_priors(iou, wanted)
    # Padded rows write to one column past the end, which is cut off: no shape depends on the data.
    column = torch.where(wanted, own_prior, num_priors)
    row = torch.arange(num_objects, device=iou.device).expand(batch_size, -1)
    padded = torch.nn.functional.pad(best_object, (0, 1)).scatter(1, column, row)
    claimed = torch.zeros_like(padded, dtype=torch.bool).scatter(1, column, True)
    best_object, claimed = padded[:, :-1], claimed[:, :-1]

    positive = claimed | (best_iou >= iou_threshold)
    labels = targets.labels.gather(1, best_object) * positive
    boxes = targets.boxes.gather(1, best_object[..., None].expand(-1, -1, 4))
    return Matches(labels, boxes, (ignored_iou >= iou_threshold) & ~positive)


def claim_priors(iou: Tensor, wanted: Tensor) -> Tensor:
    """Give every wanted object a prior of its own.

    In each round every object without a prior asks for its best free one, and a prior that several ask
    for goes to the highest IoU (the first object on a tie). A round serves at least one object an
    image, so M rounds serve all; a CPU stops at the first round that leaves nobody waiting (on a GPU
    that question would stall the queue).

    Args:
        iou: float32 [B, M, P].
        wanted: bool [B, M].

    Returns:
        int64 [B, M], index of the prior; no prior twice among the wanted objects of an image.
    """
    num_objects, num_priors = iou.shape[1:]
    free = iou
    waiting = wanted
    claimed = torch.zeros_like(wanted, dtype=torch.int64)
    earlier = torch.ones(num_objects, num_objects, dtype=torch.bool, device=iou.device).tril(-1)
    for _ in range(min(num_objects, num_priors)):
        best_iou, best = free.max(dim=2)
        same = (best[:, :, None] == best[:, None, :]) & waiting[:, None, :]
        mine, other = best_iou[:, :, None], best_iou[:, None, :]
        beaten = (same & ((other > mine) | ((other == mine) & earlier))).any(dim=2)
        served = waiting & ~beaten
        claimed = torch.where(served, best, claimed)
        waiting = waiting & beaten
        if iou.device.type == "cpu" and not waiting.any():
            break
        taken = torch.zeros_like(free[:, 0]).scatter_add(1, best, served.to(free.dtype)) > 0
        free = free.masked_fill(taken[:, None, :], -2)
    return claimed
