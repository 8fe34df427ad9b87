"""MultiBox loss: the criterion that turns raw outputs and targets into named losses (SSD, section 2.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssd.boxes import cxcywh_to_xyxy, encode
from ssd.matching import Targets, match


@dataclass(frozen=True)
class Losses:
    """Named losses, each a float32 scalar: `total` = `loc` + `conf`. num_positives: matched priors."""

    total: Tensor
    loc: Tensor
    conf: Tensor
    num_positives: Tensor


class MultiBoxLoss(nn.Module):
    """Smooth L1 on the offsets of positives, cross-entropy on positives and hard negatives.

    Both are summed over the batch and divided by its number of positives, at least 1 (equation 1).

    Args:
        priors: float32 [P, 4], cxcywh, shares of the image.
        match_iou: a prior is positive at this IoU; 0.5 in the paper.
        negatives: hard negatives a positive; 3 in the paper.
        min_negatives: hard negatives of an image at least, so that images without objects teach.
    """

    priors: Tensor
    priors_xyxy: Tensor

    def __init__(self, priors: Tensor, match_iou: float, negatives: float, min_negatives: int) -> None:
        super().__init__()
        self.register_buffer("priors", priors, persistent=False)
        self.register_buffer("priors_xyxy", cxcywh_to_xyxy(priors), persistent=False)
        self.match_iou = match_iou
        self.negatives = negatives
        self.min_negatives = min_negatives

    def forward(self, loc: Tensor, logits: Tensor, targets: Targets) -> Losses:
        """Losses of a batch.

        Args:
            loc: [B, P, 4] predicted offsets.
            logits: [B, P, C] class scores, background first.
            targets: the objects, xyxy in shares of the image.
        """
        matches = match(targets, self.priors_xyxy, self.match_iou)
        positive = matches.labels > 0
        num_positives = positive.sum()

        offsets = encode(matches.boxes, self.priors)
        loc_error = F.smooth_l1_loss(loc.float(), offsets, reduction="none").sum(-1)
        loc_loss = torch.where(positive, loc_error, 0).sum()

        logits = logits.float()
        log_normaliser = logits.logsumexp(-1)
        positive_error = log_normaliser - logits.gather(2, matches.labels[..., None]).squeeze(2)
        negative_error = log_normaliser - logits[..., 0]
        candidates = ~positive & ~matches.ignored
        conf_loss = torch.where(positive, positive_error, 0).sum() + self._hardest(
            negative_error, candidates, positive.sum(1)
        )

        scale = num_positives.clamp(min=1)
        loc_loss, conf_loss = loc_loss / scale, conf_loss / scale
        return Losses(loc_loss + conf_loss, loc_loss, conf_loss, num_positives)

    def _hardest(self, errors: Tensor, candidates: Tensor, num_positives: Tensor) -> Tensor:
        """Sum of each image's hardest negatives' errors.

        The confidence loss of a negative is what it is ranked by, so the sum over the head of the sorted
        errors is the loss itself: no mask, no gather, no shape that depends on the data.

        Args:
            errors: float32 [B, P], all positive; candidates: bool [B, P]; num_positives: int64 [B].
        """
        wanted = (num_positives * self.negatives).clamp(min=self.min_negatives)
        hardest = errors.masked_fill(~candidates, 0).sort(dim=1, descending=True).values
        rank = torch.arange(errors.shape[1], device=errors.device)
        return torch.where(rank < wanted[:, None], hardest, 0).sum()
