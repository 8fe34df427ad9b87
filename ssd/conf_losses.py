"""Which priors the confidence loss teaches, and focal loss."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ssd.matching import Matches
from ssd.selected_priors import Selection, may_look


def focal_loss(
    logits: Tensor, labels: Tensor, gamma: float, alpha: float, label_smoothing: float = 0.0
) -> Tensor:
    """Focal loss of each prior (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5).

    Here in its softmax form: alpha_t (1 - p_t)^gamma times the cross-entropy, where p_t is the probability of
    the right class.

    Args:
        logits: float32 [N, C], background first.
        labels: int64 [N].
        gamma: how much priors that are nearly right are played down; 0 = not at all.
        alpha: weight of objects; background has 1 - alpha.
        label_smoothing: of the cross-entropy.

    Returns:
        float32 [N].
    """
    error = F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    log_p = -F.cross_entropy(logits, labels, reduction="none") if label_smoothing > 0 else -error
    # Not 0, where the power has no finite gradient for gamma below 1.
    wrong = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
    return torch.where(labels > 0, alpha, 1 - alpha) * wrong**gamma * error


def positives_and_hardest(
    logits: Tensor, matches: Matches, negatives: float, min_negatives: int
) -> Selection:
    """The priors that cross-entropy teaches (SSD, section 2.2, "hard negative mining").

    Of each image all positives, and the negatives in whose background the network believes least. They are
    ranked by 1 / p(background), which is the order of their cross-entropy; of label-smoothed cross-entropy it
    is not, which would take the surest background for hard.

    Args:
        logits: [B, P, C], background first.
        matches: of the same images. What is ignored there is no negative.
        negatives: negatives a positive, rounded up.
        min_negatives: negatives of an image at least, where it has as many.
    """
    if may_look(logits):
        return _one_by_one(logits.detach(), matches, negatives, min_negatives)
    logits, positive = logits.detach().float(), matches.positive
    wanted = (positive.sum(1).double() * negatives).ceil().clamp(min=min_negatives)
    barred = positive | matches.ignored
    doubt = (logits - logits[..., :1]).exp().sum(-1).masked_fill(barred, 0)
    order = doubt.argsort(dim=1, descending=True)
    first = torch.arange(logits.shape[1], device=logits.device) < wanted[:, None]
    hardest = torch.zeros_like(barred).scatter(1, order, first)
    return Selection.of(positive | (hardest & ~barred))


def _one_by_one(logits: Tensor, matches: Matches, negatives: float, min_negatives: int) -> Selection:
    """Image by image, so that what is computed stays in the processor's cache, and without sorting."""
    objects, ignored = matches.objects.numpy(), matches.ignored.numpy()
    num_priors = objects.shape[1]
    rows = []
    for image in range(len(objects)):
        positive = np.flatnonzero(objects[image] >= 0)
        doubt = _doubt(logits[image].float())
        doubt[positive] = 0
        doubt[ignored[image]] = 0
        wanted = max(math.ceil(len(positive) * negatives), min_negatives)
        number = min(wanted, num_priors - len(positive) - int(np.count_nonzero(ignored[image])))
        # NumPy selects several times faster than torch.topk.
        hardest = np.argpartition(doubt, -number)[-number:] if number > 0 else positive[:0]
        rows += [image * num_priors + positive, image * num_priors + hardest]
    return Selection(torch.from_numpy(np.concatenate(rows)), None, num_priors)


def _doubt(logits: Tensor) -> NDArray[np.float32]:
    """1 / p(background): [P, C] to [P]. Numbers that are too large for exp are shifted, on a second try."""
    odds = logits.exp()
    # A sum over rows, faster than torch's over rows as short as these.
    doubt: NDArray[np.float32] = odds.mv(odds.new_ones(odds.shape[1])).numpy()
    with np.errstate(all="ignore"):
        doubt /= odds[:, 0].numpy()
    if not math.isfinite(doubt.max()):
        doubt = (logits - logits[:, :1]).exp_().sum(-1).numpy()
    return doubt
