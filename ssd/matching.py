"""SSD's matching of priors to ground truth, batched (Liu et al., ECCV 2016, section 2.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ssd.boxes import pairwise_iou
from ssd.structures import Targets


def eager_on_cpu(tensor: Tensor) -> bool:
    """Whether code may depend on tensor values: on a CPU, unless the graph is being traced or compiled.

    On a GPU, reading a value is a host-device sync; a traced graph must hold for other values, too.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return False
    return tensor.device.type == "cpu"


@dataclass(frozen=True)
class Selection:
    """The priors of a batch that a mask [B, P] selects.

    CPU: gather the rows (less work). GPU: keep all rows and mask their sum (static shapes, no sync).

    rows: int64 [R], the gathered rows of the flattened batch [B * P]; mask: bool [R], which of them are
    selected, None for all; num_priors: P.
    """

    rows: Tensor
    mask: Tensor | None
    num_priors: int

    @staticmethod
    def of(mask: Tensor) -> "Selection":
        """Select by a mask, bool [B, P]."""
        if eager_on_cpu(mask):
            return Selection(mask.flatten().nonzero()[:, 0], None, mask.shape[1])
        return Selection(torch.arange(mask.numel(), device=mask.device), mask.flatten(), mask.shape[1])

    @property
    def count(self) -> Tensor:
        """Number of selected priors: int64 scalar, on the device, without a sync."""
        return torch.tensor(len(self.rows)) if self.mask is None else self.mask.sum()

    @property
    def images(self) -> Tensor:
        """Index of the image of each row: int64 [R]."""
        return self.rows // self.num_priors

    @property
    def priors(self) -> Tensor:
        """Index of the prior of each row: int64 [R]."""
        return self.rows % self.num_priors

    def take(self, values: Tensor) -> Tensor:
        """The rows of [B, P, ...]: [R, ...]."""
        flat = values.flatten(0, 1)
        return flat if len(self.rows) == len(flat) else flat.index_select(0, self.rows)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of [R] values over the selected priors."""
        return (values if self.mask is None else torch.where(self.mask, values, 0)).sum()


@dataclass(frozen=True)
class Matches:
    """The match of each prior.

    objects: int64 [B, P], column of the matched object in `targets`, -1 where background; ignored: bool
    [B, P], background that must not count as a negative; targets: the ground truth, M at least 1.
    """

    objects: Tensor
    ignored: Tensor
    targets: Targets

    @property
    def positive(self) -> Tensor:
        """Which priors are positive (matched to an object): bool [B, P]."""
        return self.objects >= 0

    @property
    def num_positives(self) -> Tensor:
        """Number of positive priors: int64 scalar, on the device, without a sync."""
        return self.positive.sum()

    @property
    def divisor(self) -> Tensor:
        """What the losses are divided by, summed over a step: `num_positives`."""
        return self.num_positives

    def rows(self, images: slice) -> "Matches":
        """The matches of some images of the batch; views, no copies."""
        return Matches(self.objects[images], self.ignored[images], self.targets.rows(images))

    def labels(self, selection: Selection) -> Tensor:
        """Class of each selected prior: int64 [R], 0 where background."""
        labels = self.targets.labels.flatten().index_select(0, self._owners(selection))
        return labels * selection.take(self.positive)

    def boxes(self, selection: Selection) -> Tensor:
        """Box of each selected prior's object: float32 [R, 4], xyxy, normalised; any box where background."""
        return self.targets.boxes.flatten(0, 1).index_select(0, self._owners(selection))

    def _owners(self, selection: Selection) -> Tensor:
        """Row of each selected prior's object in the flattened targets [B * M]."""
        column = selection.take(self.objects).clamp(min=0)
        return selection.images * self.targets.labels.shape[1] + column


def match(targets: Targets, priors_xyxy: Tensor, iou_threshold: float) -> Matches:
    """Match priors to objects, with static shapes.

    Every object gets a prior of its own, the free one with the highest IoU (also when two objects share
    a best prior); every other prior is matched to the object with the highest IoU (the first on a tie), if
    it reaches the threshold. Background priors that reach the threshold with an ignored object are ignored.

    Args:
        targets: the ground truth.
        priors_xyxy: float32 [P, 4], normalised to [0, 1].
        iou_threshold: 0.5 in the paper, above 0.
    """
    targets = with_a_column(targets)
    wanted = (targets.labels > 0) & ~targets.ignored
    iou = pairwise_iou(targets.boxes, priors_xyxy)
    ignored_iou = iou.masked_fill(~targets.ignored[..., None], -1).amax(dim=1)
    iou = iou.masked_fill_(~wanted[..., None], -1)
    best_iou, objects = iou.max(dim=1)
    objects = torch.where(best_iou >= iou_threshold, objects, -1)

    # Objects without a prior write to one column past the end, which is cut off.
    own_prior = assign_unique_priors(iou, wanted)
    column = torch.arange(iou.shape[1], device=iou.device).expand_as(own_prior)
    objects = F.pad(objects, (0, 1)).scatter(1, own_prior, column)[:, :-1]
    return Matches(objects, (ignored_iou >= iou_threshold) & (objects < 0), targets)


def with_a_column(targets: Targets) -> Targets:
    """The same targets, with one column of padding where a batch has no objects at all."""
    if targets.labels.shape[1] > 0:
        return targets
    return Targets(
        F.pad(targets.boxes, (0, 0, 0, 1)), F.pad(targets.labels, (0, 1)), F.pad(targets.ignored, (0, 1))
    )


def assign_unique_priors(iou: Tensor, wanted: Tensor) -> Tensor:
    """Give every wanted object a prior of its own.

    Of all pairs of a waiting object and a free prior, that of the highest IoU is next (the first object, then
    the first prior on a tie): the bipartite matching of MultiBox (Erhan et al., CVPR 2014). A round assigns
    every pair that is the best of both its object and its prior, so at least one per image; M rounds suffice.
    A CPU stops as soon as every object has a prior; on a GPU that check would be a host-device sync.

    Args:
        iou: float32 [B, M, P].
        wanted: bool [B, M].

    Returns:
        int64 [B, M], index of the prior, no prior twice; P for objects that are not wanted, and for those
        without a prior where an image has more objects than priors.
    """
    num_objects, num_priors = iou.shape[1:]
    free = iou
    waiting = wanted
    assigned = torch.full_like(wanted, num_priors, dtype=torch.int64)
    earlier = torch.ones(num_objects, num_objects, dtype=torch.bool, device=iou.device).tril(-1)
    for _ in range(min(num_objects, num_priors)):
        best_iou, best = free.max(dim=2)
        others = free.gather(2, best[:, None, :].expand(-1, num_objects, -1)).transpose(1, 2)
        better = (others > best_iou[..., None]) | ((others == best_iou[..., None]) & earlier)
        beaten = (better & waiting[:, None, :]).any(dim=2)
        served = waiting & ~beaten & (best_iou >= 0)
        assigned = torch.where(served, best, assigned)
        waiting = waiting & ~served
        if eager_on_cpu(iou) and not waiting.any():
            break
        taken = torch.zeros_like(free[:, 0]).scatter_add(1, best, served.to(free.dtype)) > 0
        free = free.masked_fill(taken[:, None, :], -2)
    return assigned
