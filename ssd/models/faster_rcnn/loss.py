"""The loss of Faster R-CNN: objectness and offsets of anchors, class and offsets of proposals.

Ren et al., "Faster R-CNN" (NeurIPS 2015), section 3.1.2, equation 1: binary cross-entropy and smooth L1
(beta 1/9) of the sampled anchors, cross-entropy and smooth L1 of the sampled proposals, each summed over an
image and divided by the number of its samples; the mean over images, so that micro-batches and processes
change nothing. torchvision has the same terms, but divides their sums over the batch by the number of samples
of the batch. That is the same unless an image lacks background to fill up its sample, and counts less there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssd.boxes import cxcywh_to_xyxy, encode, xyxy_to_cxcywh
from ssd.loss import Losses
from ssd.matching import with_a_column
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.proposals import NO_VARIANCES
from ssd.models.faster_rcnn.sampling import RoIMatches, assign, expected_sample, sample
from ssd.seeding import seeded
from ssd.structures import Targets

BETA = 1 / 9
"""The error from which smooth L1 is linear."""


@dataclass(frozen=True)
class RoILossSettings:
    """Settings of the criterion, by default torchvision's. The names are those of the section `train`.

    label_smoothing: of the classes of proposals, the fraction of the target that is spread over all;
    box_weight: weight of both losses of offsets.
    """

    label_smoothing: float = 0.0
    box_weight: float = 1.0


@dataclass(frozen=True)
class Terms:
    """The four losses, summed over the images of a batch: float32 scalars."""

    objectness: Tensor
    anchor_boxes: Tensor
    classes: Tensor
    boxes: Tensor


class FasterRCNNLoss(nn.Module):
    """The sum of the four losses.

    In training anchors and proposals are sampled at random. Validation samples nothing: every anchor and
    every proposal counts with the probability that it would be sampled with, so that the loss is the
    expectation of the sampled one, the same in every run, and does not depend on the batch size. Its
    proposals are those of detection, without the ground truth among them.

    Args:
        anchors: float32 [A, 4], cxcywh, normalised to [0, 1].
        config: thresholds and counts.
        settings: weights of the terms.
    """

    anchors: Tensor
    anchors_xyxy: Tensor

    def __init__(
        self, anchors: Tensor, config: FasterRCNNConfig, settings: RoILossSettings = RoILossSettings()
    ) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("anchors_xyxy", cxcywh_to_xyxy(anchors), persistent=False)
        self.config = config
        self.settings = settings

    def match(self, targets: Targets, key: tuple[int, ...] = ()) -> RoIMatches:
        """Assign the anchors to objects, and draw the random numbers of a training step.

        Args:
            key: determines the sample of anchors and proposals; without it nothing is sampled.
        """
        config, targets = self.config, with_a_column(targets)
        anchors = assign(
            targets, self.anchors_xyxy, config.rpn_positive_iou, config.rpn_negative_iou, low_quality=True
        )
        if not key:
            return RoIMatches(anchors, targets)
        device = targets.boxes.device
        generator = torch.Generator(device).manual_seed(seeded("sample", *key).initial_seed())
        num_images, num_objects = targets.labels.shape
        sizes = len(self.anchors), config.rpn_train_proposals + num_objects
        keys = (torch.rand(num_images, size, generator=generator, device=device) for size in sizes)
        return RoIMatches(anchors, targets, *keys)

    def forward(
        self,
        objectness: Tensor,
        anchor_offsets: Tensor,
        proposals: Tensor,
        valid: Tensor,
        logits: Tensor,
        offsets: Tensor,
        matches: RoIMatches,
        num_images: Tensor | None = None,
    ) -> Losses:
        """Losses of a batch, or of a micro-batch.

        Args:
            objectness, anchor_offsets, proposals, valid, logits, offsets: the outputs of the network.
            matches: the result of `match` for these images; the same that the network was given, if any.
            num_images: divisor of the sums, a scalar: the images of all micro-batches (gradient accumulation)
                and all processes of a step. None counts these images.

        Returns:
            `loc` is the loss of both kinds of offsets, `conf` of objectness and classes.
        """
        anchors = self.anchor_terms(objectness, anchor_offsets, matches)
        classes, boxes, num_positives = self.proposal_terms(proposals, valid, logits, offsets, matches)
        terms = Terms(*anchors, classes, boxes)
        divisor = (matches.divisor if num_images is None else num_images).clamp(min=1)
        loc = (terms.anchor_boxes + terms.boxes) * self.settings.box_weight / divisor
        conf = (terms.objectness + terms.classes) / divisor
        return Losses(loc + conf, loc, conf, num_positives)

    def anchor_terms(self, objectness: Tensor, offsets: Tensor, matches: RoIMatches) -> tuple[Tensor, Tensor]:
        """The losses of objectness [B, A] and of offsets [B, A, 4], summed over the images."""
        config, found = self.config, matches.anchors
        counts = config.rpn_samples, config.rpn_positives
        if matches.anchor_keys is None:
            weight = expected_sample(found.positive, found.negative, *counts)
        else:
            weight = sample(found.positive, found.negative, matches.anchor_keys, *counts).float()
        weight = _shares(weight)
        error = F.binary_cross_entropy_with_logits(
            objectness.float(), found.positive.float(), reduction="none"
        )
        wanted = encode(_owners(matches.targets, found.objects), self.anchors, NO_VARIANCES)
        return (weight * error).sum(), _box_loss(offsets, wanted, weight * found.positive)

    def proposal_terms(
        self, proposals: Tensor, valid: Tensor, logits: Tensor, offsets: Tensor, matches: RoIMatches
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The losses of logits [B, N, C] and of offsets [B, N, C, 4], summed; the number of positives."""
        config, targets = self.config, matches.targets
        found = assign(targets, proposals, config.roi_iou, config.roi_iou)
        positive, negative = found.positive & valid, found.negative & valid
        if matches.proposal_keys is None:
            weight = expected_sample(positive, negative, config.roi_samples, config.roi_positives)
        else:
            weight = valid.float()
        weight = _shares(weight)
        labels = targets.labels.gather(1, found.objects) * positive
        smoothing = self.settings.label_smoothing
        error = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=smoothing
        )
        own = offsets.gather(2, labels[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
        wanted = encode(_owners(targets, found.objects), xyxy_to_cxcywh(proposals))
        box_loss = _box_loss(own, wanted, weight * positive)
        return (weight.flatten() * error).sum(), box_loss, positive.sum()


def _shares(weight: Tensor) -> Tensor:
    """Weights [B, N] divided by their sum over each image; an image without any has none."""
    return weight / weight.sum(1, keepdim=True).clamp(min=1)


def _owners(targets: Targets, objects: Tensor) -> Tensor:
    """The boxes of objects [B, N], columns of the targets: [B, N, 4]."""
    return targets.boxes.gather(1, objects[..., None].expand(-1, -1, 4))


def _box_loss(offsets: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Smooth L1 of offsets [B, N, 4], weighted by [B, N]. What has no weight may be wanted to be NaN."""
    wanted = torch.where(weight[..., None] > 0, wanted, 0)
    error = F.smooth_l1_loss(offsets.float(), wanted, reduction="none", beta=BETA).sum(-1)
    return (weight * error).sum()
