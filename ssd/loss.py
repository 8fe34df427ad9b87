"""MultiBox loss: confidence loss and localisation loss of raw outputs against targets.

L = (L_conf + box_weight * L_loc) / N (Liu et al., "SSD", ECCV 2016, section 2.2, equation 1), with hard
negative mining; alternatives for the two terms are focal loss, GIoU (Rezatofighi et al., CVPR 2019) and CIoU.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from ssd.boxes import cxcywh_to_xyxy, decode, encode, iou
from ssd.matching import Matches, Selection, match
from ssd.structures import Targets

NegativesBy = Literal["loss", "confidence"]

TINY = 1e-12
"""Added to denominators that may be zero: the square of a millionth of an image side."""


@dataclass(frozen=True)
class LossSettings:
    """Settings of the criterion, by default the paper's. The names are those of the section `train`.

    match_iou: a prior is positive from this IoU on; conf_loss: cross-entropy on positives and hard
    negatives, or focal loss on all priors; negatives: hard negatives per positive; negatives_by: see
    `hard_negatives`; min_negatives: minimum of hard negatives per image, so that images without objects have
    a loss, too; focal_gamma, focal_alpha: see `focal_loss`; label_smoothing: fraction of the target that is
    spread over all classes, background included (Szegedy et al., "Rethinking the Inception Architecture",
    CVPR 2016, section 7); box_loss: smooth L1 or L1 on the offsets, or GIoU or CIoU on the decoded boxes;
    smooth_l1_beta: the error from which smooth L1 is linear; box_weight: weight of the localisation loss.
    """

    match_iou: float = 0.5
    conf_loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    negatives: float = 3.0
    negatives_by: NegativesBy = "loss"
    min_negatives: int = 8
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25
    label_smoothing: float = 0.0
    box_loss: Literal["smooth_l1", "l1", "giou", "ciou"] = "smooth_l1"
    smooth_l1_beta: float = 1.0
    box_weight: float = 1.0


@dataclass(frozen=True)
class Losses:
    """Losses, each a float32 scalar: `total` = `loc` + `conf`. num_positives: number of positive priors."""

    total: Tensor
    loc: Tensor
    conf: Tensor
    num_positives: Tensor


class MultiBoxLoss(nn.Module):
    """Localisation loss of the positives plus confidence loss of positives and negatives.

    Both are summed over the batch and divided by the number of positives, at least 1.

    Args:
        priors: float32 [P, 4], cxcywh, normalised to [0, 1].
        settings: loss functions and their parameters.
    """

    priors: Tensor
    priors_xyxy: Tensor

    def __init__(self, priors: Tensor, settings: LossSettings = LossSettings()) -> None:
        super().__init__()
        self.register_buffer("priors", priors, persistent=False)
        self.register_buffer("priors_xyxy", cxcywh_to_xyxy(priors), persistent=False)
        self.settings = settings

    def match(self, targets: Targets, key: tuple[int, ...] = ()) -> Matches:
        """Match priors to objects. key: not used, since nothing is drawn."""
        return match(targets, self.priors_xyxy, self.settings.match_iou)

    def forward(
        self, loc: Tensor, logits: Tensor, matches: Matches, num_positives: Tensor | None = None
    ) -> Losses:
        """Losses of a batch, or of a micro-batch.

        Args:
            loc: [B, P, 4] predicted offsets.
            logits: [B, P, C] class scores, background first.
            matches: the result of `match` for these images.
            num_positives: divisor of the sums, a scalar, 0 counts as 1: the positives over all micro-batches
                (gradient accumulation) and all processes of a step. None counts those of these images.
        """
        settings = self.settings
        positives = Selection.of(matches.positive)
        if settings.conf_loss == "focal":
            selected = Selection.of(~matches.ignored)
        else:
            negatives = hard_negatives(
                logits, matches, settings.negatives, settings.min_negatives, settings.negatives_by
            )
            selected = Selection.of(matches.positive | negatives)
        own_positives = positives.count
        scale = (own_positives if num_positives is None else num_positives).clamp(min=1)
        loc_loss = self._box_loss(loc, matches, positives) * settings.box_weight / scale
        conf_loss = self._conf_loss(logits, matches, selected) / scale
        return Losses(loc_loss + conf_loss, loc_loss, conf_loss, own_positives)

    def _box_loss(self, loc: Tensor, matches: Matches, positives: Selection) -> Tensor:
        """Localisation loss, summed over the positives."""
        priors, boxes = self.priors.index_select(0, positives.priors), matches.boxes(positives)
        loc = positives.take(loc).float()
        if self.settings.box_loss == "smooth_l1":
            offsets, beta = encode(boxes, priors), self.settings.smooth_l1_beta
            error = F.smooth_l1_loss(loc, offsets, reduction="none", beta=beta).sum(-1)
        elif self.settings.box_loss == "l1":
            error = F.l1_loss(loc, encode(boxes, priors), reduction="none").sum(-1)
        elif self.settings.box_loss == "giou":
            error = generalized_box_iou_loss(decode(loc, priors), boxes)
        else:
            error = ciou_loss(decode(loc, priors), boxes)
        return positives.sum(error)

    def _conf_loss(self, logits: Tensor, matches: Matches, selected: Selection) -> Tensor:
        """Confidence loss, summed over the selected priors."""
        settings, smoothing = self.settings, self.settings.label_smoothing
        logits, labels = selected.take(logits).float(), matches.labels(selected)
        if settings.conf_loss == "focal":
            error = focal_loss(logits, labels, settings.focal_gamma, settings.focal_alpha, smoothing)
        else:
            error = F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        return selected.sum(error)


def hard_negatives(
    logits: Tensor, matches: Matches, negatives: float, min_negatives: int, negatives_by: NegativesBy = "loss"
) -> Tensor:
    """Hard negative mining: the background priors with the highest confidence loss (SSD, section 2.2).

    They are ranked without label smoothing, which would give confident background a high loss.

    An alternative ranking is by confidence: the loss of an unmatched prior is described as
    log(1 + c_max / sum_k c_k), and the hardest are those of the highest object confidence. With
    c_k = exp(logit_k), the softmax p_k = c_k / sum_j c_j and background 0,

        loss        -log p_0 = -log(1 - sum_{k>0} p_k)          rises with the sum of object probabilities,
        confidence  log(1 + c_max / sum_k c_k) = log(1 + p_max)  rises with the largest of them.

    With one class the sum is the largest: the ranking is the same, and the values agree to first order in p.
    With several it may differ: p = (0.4, 0.3, 0.3) is harder by loss than (0.5, 0.5, 0), which is harder by
    confidence. The loss that is trained is -log p_0 either way; log(1 + p_max) is at most log 2, however
    wrong the prior.

    Args:
        logits: [B, P, C], background first.
        matches: of the same images. Ignored priors are never negatives.
        negatives: hard negatives per positive of the image, rounded up.
        min_negatives: minimum per image, as far as it has that many background priors.
        negatives_by: ranking by -log p_0 ("loss") or by p_max ("confidence").

    Returns:
        bool [B, P].
    """
    wanted = (matches.positive.sum(1).double() * negatives).ceil().clamp(min=min_negatives)
    barred = matches.positive | matches.ignored
    log_p = logits.detach().float().log_softmax(-1)
    hardness = -log_p[..., 0] if negatives_by == "loss" else log_p[..., 1:].amax(-1)
    order = hardness.masked_fill(barred, -math.inf).argsort(dim=1, descending=True)
    first = torch.arange(order.shape[1], device=order.device) < wanted[:, None]
    return torch.zeros_like(barred).scatter(1, order, first) & ~barred


def focal_loss(
    logits: Tensor, labels: Tensor, gamma: float, alpha: float, label_smoothing: float = 0.0
) -> Tensor:
    """Focal loss of each prior (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5).

    Here in its softmax form: alpha_t (1 - p_t)^gamma times the cross-entropy, where p_t is the probability of
    the true class.

    Args:
        logits: float32 [N, C], background first.
        labels: int64 [N].
        gamma: focusing parameter, which down-weights well-classified priors; 0 = not at all.
        alpha: weight of objects; background has 1 - alpha.
        label_smoothing: of the cross-entropy.

    Returns:
        float32 [N].
    """
    error = F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    log_p = -F.cross_entropy(logits, labels, reduction="none") if label_smoothing > 0 else -error
    # Clamped above 0, where the power has no finite gradient for gamma below 1.
    wrong = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
    return torch.where(labels > 0, alpha, 1 - alpha) * wrong**gamma * error


def ciou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """1 - CIoU (Zheng et al., "Distance-IoU Loss", AAAI 2020, equations 8 to 11).

    On top of the IoU: the squared distance of the centres over the squared diagonal of the enclosing box,
    and the difference of the aspect ratios, weighted with the `alpha` of equation 11, which as in the paper
    has no gradient. Not torchvision's, which gives NaN for a box without area.

    Args:
        boxes, targets: float32 [..., 4], xyxy, normalised, with x1 <= x2 and y1 <= y2.

    Returns:
        float32 [...], 0 for identical boxes.
    """
    overlap = iou(boxes, targets)
    low, high = torch.minimum(boxes, targets)[..., :2], torch.maximum(boxes, targets)[..., 2:]
    between = (boxes[..., :2] + boxes[..., 2:] - targets[..., :2] - targets[..., 2:]) / 2
    distance = between.square().sum(-1) / ((high - low).square().sum(-1) + TINY)
    aspect = 4 / math.pi**2 * (_diagonal_angle(boxes) - _diagonal_angle(targets)).square()
    with torch.no_grad():
        alpha = aspect / (1 - overlap + aspect + TINY)
    return 1 - overlap + distance + alpha * aspect


def _diagonal_angle(boxes: Tensor) -> Tensor:
    """arctan(width / height)."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(-1)
    return torch.atan2(width, height + TINY)
