"""MultiBox loss: the criterion that turns raw outputs and targets into named losses (SSD, section 2.2)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ssd.box_losses import ciou_loss, giou_loss
from ssd.boxes import cxcywh_to_xyxy, decode, encode
from ssd.conf_losses import focal_loss, positives_and_hardest
from ssd.matching import Matches, match
from ssd.pruned_matching import PriorTiles, match_pruned
from ssd.selected_priors import Selection, may_look
from ssd.structures import Targets


@dataclass(frozen=True)
class LossSettings:
    """What the criterion computes: the paper's unless told otherwise.

    match_iou: a prior is positive at this IoU; conf_loss: cross-entropy on positives and hard negatives, or
    focal loss on all priors; negatives: hard negatives a positive; min_negatives: hard negatives of an image
    at least, so that images without objects teach; focal_gamma, focal_alpha: see `focal_loss`;
    label_smoothing: share of the target that is spread over all classes, background too (Szegedy et al.,
    "Rethinking the Inception Architecture", CVPR 2016, section 7); box_loss: smooth L1 on the offsets, or
    GIoU or CIoU on the decoded boxes; smooth_l1_beta: the error from which it is linear; box_weight: of the
    box loss.
    """

    match_iou: float = 0.5
    conf_loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    negatives: float = 3.0
    min_negatives: int = 8
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25
    label_smoothing: float = 0.0
    box_loss: Literal["smooth_l1", "giou", "ciou"] = "smooth_l1"
    smooth_l1_beta: float = 1.0
    box_weight: float = 1.0


@dataclass(frozen=True)
class Losses:
    """Named losses, each a float32 scalar: `total` = `loc` + `conf`. num_positives: matched priors."""

    total: Tensor
    loc: Tensor
    conf: Tensor
    num_positives: Tensor


class MultiBoxLoss(nn.Module):
    """Box loss of the positives plus confidence loss (equation 1, and later variants of its two terms).

    Both are summed over the batch and divided by the number of positives, at least 1.

    Args:
        priors: float32 [P, 4], cxcywh, shares of the image.
        settings: which losses.
    """

    priors: Tensor
    priors_xyxy: Tensor

    def __init__(self, priors: Tensor, settings: LossSettings = LossSettings()) -> None:
        super().__init__()
        self.register_buffer("priors", priors, persistent=False)
        self.register_buffer("priors_xyxy", cxcywh_to_xyxy(priors), persistent=False)
        self.tiles = PriorTiles.of(self.priors_xyxy)
        self.settings = settings

    def match(self, targets: Targets) -> Matches:
        """Match priors to objects; `targets` xyxy in shares of the image."""
        if may_look(targets.boxes):
            return match_pruned(targets, self.tiles, self.settings.match_iou)
        return match(targets, self.priors_xyxy, self.settings.match_iou)

    def forward(
        self, loc: Tensor, logits: Tensor, matches: Matches, num_positives: Tensor | None = None
    ) -> Losses:
        """Losses of a batch, or of a part of one.

        Args:
            loc: [B, P, 4] predicted offsets.
            logits: [B, P, C] class scores, background first.
            matches: what `match` says of these images.
            num_positives: what the sums are divided by, where that is not the number of these images alone:
                over all parts of a batch and all devices, say. A scalar; 0 counts as 1.
        """
        settings = self.settings
        positives = Selection.of(matches.positive)
        if settings.conf_loss == "focal":
            taught = Selection.of(~matches.ignored)
        else:
            taught = positives_and_hardest(logits, matches, settings.negatives, settings.min_negatives)
        own_positives = positives.count
        scale = (own_positives if num_positives is None else num_positives).clamp(min=1)
        loc_loss = self._box_loss(loc, matches, positives) * settings.box_weight / scale
        conf_loss = self._conf_loss(logits, matches, taught) / scale
        return Losses(loc_loss + conf_loss, loc_loss, conf_loss, own_positives)

    def _box_loss(self, loc: Tensor, matches: Matches, positives: Selection) -> Tensor:
        """Sum over the positives."""
        priors, boxes = self.priors.index_select(0, positives.priors), matches.boxes(positives)
        loc = positives.take(loc).float()
        if self.settings.box_loss == "smooth_l1":
            offsets, beta = encode(boxes, priors), self.settings.smooth_l1_beta
            error = F.smooth_l1_loss(loc, offsets, reduction="none", beta=beta).sum(-1)
        elif self.settings.box_loss == "giou":
            error = giou_loss(decode(loc, priors), boxes)
        else:
            error = ciou_loss(decode(loc, priors), boxes)
        return positives.sum(error)

    def _conf_loss(self, logits: Tensor, matches: Matches, taught: Selection) -> Tensor:
        """Sum over the priors that are taught."""
        settings = self.settings
        logits, labels = taught.take(logits).float(), matches.labels(taught)
        if settings.conf_loss == "focal":
            error = focal_loss(
                logits, labels, settings.focal_gamma, settings.focal_alpha, settings.label_smoothing
            )
        else:
            error = F.cross_entropy(
                logits, labels, reduction="none", label_smoothing=settings.label_smoothing
            )
        return taught.sum(error)
