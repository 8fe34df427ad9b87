"""From raw outputs to detections (Liu et al., "SSD", ECCV 2016, section 2.2 "inference")."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from ssd.boxes import decode, pairwise_iou
from ssd.matching import eager_on_cpu


@dataclass(frozen=True)
class PostProcessSettings:
    """The paper's unless told otherwise. The names are those of the section `evaluate`.

    score_threshold: detections at or below it are dropped; nms_iou: overlap above which the lower-scored
    of one class is dropped; max_per_class: candidates of a class that reach NMS; max_detections: kept per
    image.
    """

    score_threshold: float = 0.01
    nms_iou: float = 0.45
    max_per_class: int = 400
    max_detections: int = 200


NMS = Callable[[Tensor, Tensor, float, float], Tensor]
"""(boxes [R, k, 4], scores [R, k], iou_threshold, score_threshold) to a mask [R, k], as `nms_mask`."""


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def nms_mask(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """Greedy non-maximum suppression within each of many rows at once.

    A candidate is kept when no kept candidate before it overlaps it. That rule, applied to all rows
    together until nothing changes, ends at the greedy answer: after n rounds every candidate with a
    chain of at most n suppressions before it is right. Only the columns that some row uses are paired.

    It is plain tensor code, so that a TorchScript file needs no other library.

    Args:
        boxes: float32 [R, k, 4], xyxy.
        scores: float32 [R, k], descending in each row.
        iou_threshold: two boxes may overlap as much as this.
        score_threshold: candidates at or below it are dropped.

    Returns:
        bool [R, k], True where kept.
    """
    valid = scores > score_threshold
    keep = torch.zeros_like(valid)
    num_columns = 0
    if valid.numel() > 0:
        num_columns = int(valid.sum(1).max())
    if num_columns == 0:
        return keep
    # Blocks of rows keep the pair matrices small: 16 MiB each, whatever the batch.
    num_rows = max(1, 4194304 // (num_columns * num_columns))
    for start in range(0, boxes.shape[0], num_rows):
        block = boxes[start : start + num_rows, :num_columns]
        valid_block = valid[start : start + num_rows, :num_columns]
        overlap = (pairwise_iou(block, block) > iou_threshold).tril(-1)
        kept, before = valid_block, torch.zeros_like(valid_block)
        while not torch.equal(kept, before):
            before = kept
            kept = valid_block & ~(overlap & kept.unsqueeze(1)).any(2)
        keep[start : start + num_rows, :num_columns] = kept
    return keep


class PostProcessor(nn.Module):
    """Decoding, the best candidates per class, NMS within each class, the best detections per image.

    On a device and in a graph all images and classes go through one NMS call of fixed shape. On a CPU that is
    up to ten times slower than torchvision's NMS on the few candidates above the threshold, image by image.

    Args:
        priors: float32 [P, 4], cxcywh, normalised to [0, 1].
        settings: thresholds.
        nms: `nms_mask`, or what stands for it in a format that has its own.
    """

    priors: Tensor

    def __init__(self, priors: Tensor, settings: PostProcessSettings, nms: NMS = nms_mask) -> None:
        super().__init__()
        self.register_buffer("priors", priors, persistent=False)
        self.settings = settings
        self.nms = nms
        self.per_class = min(settings.max_per_class, priors.shape[0])

    def forward(self, loc: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detections of a batch, best first, K = max_detections rows per image.

        Args:
            loc: [B, P, 4]; logits: [B, P, C], background first.

        Returns:
            boxes float32 [B, K, 4], xyxy, normalised to [0, 1] and clipped to it; scores float32 [B, K];
            labels int64 [B, K]; num_detections int64 [B]. Rows past num_detections are 0.
        """
        loc, logits = loc.detach().float(), logits.detach().float()
        if eager_on_cpu(logits) and self.nms is nms_mask:
            return self._image_by_image(loc, logits)
        return self._batched(loc, logits)

    def _batched(self, loc: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All images and classes at once; no shape depends on the data."""
        settings = self.settings
        num_classes = logits.shape[2] - 1
        boxes = decode(loc, self.priors).clamp(0, 1)
        scores = logits.softmax(-1)[..., 1:].transpose(1, 2)
        scores, prior = scores.topk(self.per_class, dim=2)
        candidates = boxes[:, None].expand(-1, num_classes, -1, -1)
        candidates = candidates.gather(2, prior[..., None].expand(-1, -1, -1, 4))

        keep = self.nms(
            candidates.flatten(0, 1), scores.flatten(0, 1), settings.nms_iou, settings.score_threshold
        )
        scores = torch.where(keep.view_as(scores), scores, 0).flatten(1)
        candidates = candidates.flatten(1, 2)
        # Even a network of few priors and one class gives K rows: score 0 is "unused".
        missing = settings.max_detections - self.per_class
        if missing > 0:
            scores, candidates = F.pad(scores, (0, missing)), F.pad(candidates, (0, 0, 0, missing))
        best, index = scores.topk(settings.max_detections, dim=1)
        boxes = candidates.gather(1, index[..., None].expand(-1, -1, 4))
        labels = index // self.per_class + 1
        used = best > 0
        return boxes * used[..., None], best, labels * used, used.sum(1)

    def _image_by_image(self, loc: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same for a CPU, which looks at the data and does no more work than they need."""
        num_images, num_rows = len(loc), self.settings.max_detections
        boxes, scores = loc.new_zeros(num_images, num_rows, 4), loc.new_zeros(num_images, num_rows)
        labels = torch.zeros_like(scores, dtype=torch.int64)
        num_detections = torch.zeros(num_images, dtype=torch.int64)
        for image in range(num_images):
            prior, label, score = self._candidates(logits[image].softmax(-1)[:, 1:])
            box = decode(loc[image, prior], self.priors[prior]).clamp(0, 1)
            # In float64: batched_nms moves each class to a place of its own, which costs float32 some digits.
            kept = batched_nms(box.double(), score.double(), label, self.settings.nms_iou)[:num_rows]
            n = len(kept)
            boxes[image, :n], scores[image, :n], labels[image, :n] = box[kept], score[kept], label[kept] + 1
            num_detections[image] = n
        return boxes, scores, labels, num_detections

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What reaches NMS of the scores [P, C - 1] of an image: prior [N], class from 0 [N], score [N]."""
        above = scores > self.settings.score_threshold
        if above.sum(0).max() > self.per_class:
            lowest = scores.topk(self.per_class, dim=0).values[-1]
            above &= scores >= lowest
        prior, label = above.nonzero(as_tuple=True)
        return prior, label, scores[prior, label]
