"""Post-processing of Faster R-CNN: every proposal gives one box and one score for each class."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ssd.boxes import decode, xyxy_to_cxcywh
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.roi_align import sides_of
from ssd.postprocess import NMS, Candidates, Found, PostProcessSettings, best_detections, nms_mask

MIN_SIDE = 1e-2
"""Pixels: smaller boxes are dropped."""


class RoIPostProcessor(nn.Module):
    """Decoding of offsets from proposals, then `ssd.postprocess.best_detections`.

    Args:
        config: of the network.
        settings: thresholds. `max_per_class` is not used: every proposal may go into NMS, as in torchvision.
        nms: see `ssd.postprocess.PostProcessor`.
    """

    def __init__(self, config: FasterRCNNConfig, settings: PostProcessSettings, nms: NMS = nms_mask) -> None:
        super().__init__()
        self.side = config.input_size
        self.num_rows = config.num_proposals(self.side, config.rpn_proposals)
        self.settings = replace(settings, max_per_class=config.rpn_proposals)
        self.nms = nms

    def forward(self, *outputs: Tensor) -> Found:
        """Detections of a batch, as `best_detections` gives them, from the outputs of the network."""
        return best_detections(self.candidates(*outputs), self.settings, self.nms)

    def candidates(
        self,
        objectness: Tensor,
        anchor_offsets: Tensor,
        proposals: Tensor,
        valid: Tensor,
        logits: Tensor,
        offsets: Tensor,
    ) -> Candidates:
        """What goes into NMS, from the outputs of the network."""
        scores, offsets = logits.detach().float().softmax(-1)[..., 1:], offsets.detach().float()[:, :, 1:]
        boxes = decode(offsets, xyxy_to_cxcywh(proposals)[:, :, None]).clamp(0, 1)
        large = torch.minimum(*sides_of(boxes)) * self.side >= MIN_SIDE
        scores = torch.where(large & valid[..., None], scores, 0)

        def boxes_of(image: Tensor, row: Tensor, label: Tensor) -> Tensor:
            return boxes[image, row, label]

        return Candidates(scores, lambda: boxes, boxes_of, self.num_rows)
