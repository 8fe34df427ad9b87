"""Post-processing: raw outputs to detections (Liu et al., "SSD", ECCV 2016, section 2.2 "inference")."""

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
    """Settings of post-processing, by default the paper's. The names are those of the section `evaluate`.

    score_threshold: detections at or below it are dropped; nms_iou: IoU above which NMS suppresses the
    lower-scored of two boxes of a class; max_per_class: most candidates per class that go into NMS;
    max_detections: most detections per image.
    """

    score_threshold: float = 0.01
    nms_iou: float = 0.45
    max_per_class: int = 400
    max_detections: int = 200


NMS = Callable[[Tensor, Tensor, float, float], Tensor]
"""(boxes [R, N, 4], scores [R, N], iou_threshold, score_threshold) to a mask [R, N], as `nms_mask`."""


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def nms_mask(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """Greedy non-maximum suppression (NMS) within each of many rows at once.

    A candidate is kept if no kept candidate before it overlaps it. Applied to all rows at once until
    nothing changes, this rule gives the result of greedy NMS: after n rounds every candidate with a chain
    of at most n suppressions before it is final. IoUs are computed only for columns that some row uses.

    Only tensor operations are used, so that a TorchScript file needs no library besides torch.

    Args:
        boxes: float32 [R, N, 4], xyxy.
        scores: float32 [R, N], descending in each row.
        iou_threshold: a box is suppressed above this IoU.
        score_threshold: candidates at or below it are dropped.

    Returns:
        bool [R, N], True where kept.
    """
    valid = scores > score_threshold
    keep = torch.zeros_like(valid)
    num_columns = 0
    if valid.numel() > 0:
        num_columns = int(valid.sum(1).max())
    if num_columns == 0:
        return keep
    # Blocks of rows limit the IoU matrices to 16 MiB each, whatever the batch size.
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


@dataclass(frozen=True)
class Candidates:
    """What a network proposes for a batch, before NMS.

    scores: float32 [B, P, C - 1], without background; boxes: gives float32 [B, P, 1 or C - 1, 4], xyxy,
    normalised and clipped to [0, 1], one for all classes or one for each; boxes_of: gives those of some
    triples (image, row, class), int64 [N] each: [N, 4]; num_rows: P, a number in a traced graph, too.
    """

    scores: Tensor
    boxes: Callable[[], Tensor]
    boxes_of: Callable[[Tensor, Tensor, Tensor], Tensor]
    num_rows: int


Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""boxes, scores, labels, num_detections, as `best_detections` describes them."""


def best_detections(candidates: Candidates, settings: PostProcessSettings, nms: NMS) -> Found:
    """Top candidates per class, NMS per class, top detections per image, best first, K = max_detections.

    GPU and exported graphs: one NMS call for all images and classes, with static shapes. CPU: torchvision's
    NMS per image, on the few candidates above the score threshold, which is up to ten times as fast there.

    Returns:
        boxes float32 [B, K, 4], xyxy, normalised to [0, 1] and clipped to it; scores float32 [B, K];
        labels int64 [B, K]; num_detections int64 [B]. Rows past num_detections are 0.
    """
    if eager_on_cpu(candidates.scores) and nms is nms_mask:
        return _image_by_image(candidates, settings)
    return _batched(candidates, settings, nms)


def _batched(candidates: Candidates, settings: PostProcessSettings, nms: NMS) -> Found:
    """All images and classes at once, with static shapes."""
    num_classes = candidates.scores.shape[2]
    per_class = min(settings.max_per_class, candidates.num_rows)
    all_boxes = candidates.boxes().transpose(1, 2).expand(-1, num_classes, -1, -1)
    scores, row = candidates.scores.transpose(1, 2).topk(per_class, dim=2)
    boxes = all_boxes.gather(2, row[..., None].expand(-1, -1, -1, 4))

    keep = nms(boxes.flatten(0, 1), scores.flatten(0, 1), settings.nms_iou, settings.score_threshold)
    scores = torch.where(keep.view_as(scores), scores, 0).flatten(1)
    boxes = boxes.flatten(1, 2)
    # Pad to K rows where the network has few candidates and one class; score 0 marks an unused row.
    missing = settings.max_detections - per_class
    if missing > 0:
        scores, boxes = F.pad(scores, (0, missing)), F.pad(boxes, (0, 0, 0, missing))
    best, index = scores.topk(settings.max_detections, dim=1)
    boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    labels = index // per_class + 1
    used = best > 0
    return boxes * used[..., None], best, labels * used, used.sum(1)


def _image_by_image(candidates: Candidates, settings: PostProcessSettings) -> Found:
    """The same for a CPU, with data-dependent shapes: only candidates above the threshold need a box."""
    num_images, num_rows = len(candidates.scores), settings.max_detections
    boxes = candidates.scores.new_zeros(num_images, num_rows, 4)
    scores = candidates.scores.new_zeros(num_images, num_rows)
    labels = torch.zeros_like(scores, dtype=torch.int64)
    num_detections = torch.zeros(num_images, dtype=torch.int64)
    image, row, all_labels, all_scores = _above_threshold(candidates.scores, settings)
    # In float64: batched_nms adds an offset per class to the boxes, which loses precision in float32.
    all_boxes = candidates.boxes_of(image, row, all_labels).double()
    counts = image.bincount(minlength=num_images).tolist()
    parts = (torch.split(values, counts) for values in (all_boxes, all_scores.double(), all_labels))
    for i, (box, score, label) in enumerate(zip(*parts, strict=True)):
        kept = batched_nms(box, score, label, settings.nms_iou)[:num_rows]
        n = len(kept)
        boxes[i, :n], scores[i, :n], labels[i, :n] = box[kept], score[kept], label[kept] + 1
        num_detections[i] = n
    return boxes, scores, labels, num_detections


def _above_threshold(scores: Tensor, settings: PostProcessSettings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What goes into NMS, from scores [B, P, C - 1]: image (ascending), row, class, score, each [N]."""
    above = scores > settings.score_threshold
    per_class = min(settings.max_per_class, scores.shape[1])
    for image in (above.sum(1) > per_class).any(1).nonzero()[:, 0].tolist():
        lowest = scores[image].topk(per_class, dim=0).values[-1]
        above[image] &= scores[image] >= lowest
    image, row, label = above.nonzero(as_tuple=True)
    return image, row, label, scores[image, row, label]


class PostProcessor(nn.Module):
    """Decoding of offsets from priors, then `best_detections`.

    Args:
        priors: float32 [P, 4], cxcywh, normalised to [0, 1].
        settings: thresholds.
        nms: `nms_mask`, or its replacement in an export format with an NMS operator.
    """

    priors: Tensor

    def __init__(self, priors: Tensor, settings: PostProcessSettings, nms: NMS = nms_mask) -> None:
        super().__init__()
        self.register_buffer("priors", priors, persistent=False)
        self.settings = settings
        self.nms = nms
        self.num_priors = len(priors)

    def forward(self, loc: Tensor, logits: Tensor) -> Found:
        """Detections of a batch, as `best_detections` gives them.

        Args:
            loc: [B, P, 4]; logits: [B, P, C], background first.
        """
        return best_detections(self.candidates(loc, logits), self.settings, self.nms)

    def candidates(self, loc: Tensor, logits: Tensor) -> Candidates:
        """What goes into NMS; arguments as of `forward`."""
        loc, logits = loc.detach().float(), logits.detach().float()

        def boxes() -> Tensor:
            return decode(loc, self.priors).clamp(0, 1)[:, :, None]

        def boxes_of(image: Tensor, row: Tensor, label: Tensor) -> Tensor:
            return decode(loc[image, row], self.priors[row]).clamp(0, 1)

        return Candidates(logits.softmax(-1)[..., 1:], boxes, boxes_of, self.num_priors)
