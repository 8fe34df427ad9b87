"""The Faster R-CNN network: backbone, feature pyramid, region proposals, second stage."""

import copy
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead

from ssd.matching import eager_on_cpu
from ssd.models.backbones import build_backbone
from ssd.models.faster_rcnn.config import STRIDES, FasterRCNNConfig
from ssd.models.faster_rcnn.loss import FasterRCNNLoss, RoILossSettings
from ssd.models.faster_rcnn.postprocess import RoIPostProcessor
from ssd.models.faster_rcnn.proposals import propose
from ssd.models.faster_rcnn.roi_align import GRID, rois_of
from ssd.models.faster_rcnn.sampling import RoIMatches, sample_proposals
from ssd.models.fpn import FPN
from ssd.models.kernels import IN_PYTORCH, Kernels
from ssd.params import TrainParams
from ssd.postprocess import NMS, PostProcessSettings, nms_mask


class FasterRCNN(nn.Module):
    """Faster R-CNN (Ren et al., NeurIPS 2015) with a feature pyramid (Lin et al., CVPR 2017).

    The layers are those of torchvision's `fasterrcnn_resnet50_fpn`, on any backbone.

    Attributes:
        priors: the anchors, float32 [A, 4], cxcywh, normalised to [0, 1]. Computed, never saved.
        kernels: NMS and RoI align of the proposals; see `with_kernels`.
    """

    priors: Tensor

    def __init__(self, config: FasterRCNNConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        # First of all: it says which backbones lack a map, by the key that the user has set.
        channels = [number for number, _, _ in config.backbone_shapes()]
        self.backbone = build_backbone(config.backbone, STRIDES)
        self.neck = FPN(channels, config.width)
        self.rpn = RPNHead(config.width, max(own.stop for own in config.rpn_outputs))
        self.box_head = TwoMLPHead(config.width * GRID**2, config.roi_width)
        self.predictor = FastRCNNPredictor(config.roi_width, config.num_classes)
        self.register_buffer("priors", config.anchors_at(config.input_size), persistent=False)
        self.kernels = IN_PYTORCH

    def forward(self, images: Tensor, matches: RoIMatches | None = None) -> tuple[Tensor, ...]:
        """Raw outputs, of the best proposals, or in training of those that are sampled.

        Args:
            images: [B, 3, S, S], normalised; S is the configured input size, or in training another one.
            matches: of these images, with keys; in training alone.

        Returns:
            objectness [B, A], logits; anchor_offsets [B, A, 4]; proposals float32 [B, N, 4], xyxy,
            normalised; valid bool [B, N], which rows are proposals; logits [B, N, C], background first;
            offsets [B, N, C, 4] of the proposals, for each class; both arbitrary where not valid.
        """
        config = self.config
        # In a trace sizes are tensors; it has the input size that the network was built for.
        side = config.input_size if torch._C._get_tracing_state() else images.shape[-1]
        maps = self.neck(self.backbone(images))
        objectness, anchor_offsets = self.anchor_outputs([*maps, F.max_pool2d(maps[-1], 1, 2)])
        proposals, valid = propose(
            objectness.detach().float(),
            anchor_offsets.detach().float(),
            self.anchors_at(side),
            config.anchors_per_level(side),
            side,
            config.rpn_proposals if matches is None else config.rpn_train_proposals,
            config.rpn_nms_iou,
            self.kernels.nms,
        )
        if matches is not None:
            proposals, valid = sample_proposals(proposals, valid, matches, config)
        logits, offsets = self.second_stage(maps, proposals, valid, side)
        shape = (-1, proposals.shape[1], config.num_classes)
        return objectness, anchor_offsets, proposals, valid, logits.view(shape), offsets.view(*shape, 4)

    def anchor_outputs(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The region proposal network, of all levels: objectness [B, A], offsets [B, A, 4]."""
        objectness, offsets = self.rpn(maps)
        logits, loc = [], []
        for own, x, y in zip(self.config.rpn_outputs, objectness, offsets, strict=True):
            logits.append(x[:, own].permute(0, 2, 3, 1).flatten(1))
            y = y[:, 4 * own.start : 4 * own.stop]
            loc.append(y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, 4))
        return torch.cat(logits, dim=1), torch.cat(loc, dim=1)

    def second_stage(
        self, maps: list[Tensor], proposals: Tensor, valid: Tensor, side: int
    ) -> tuple[Tensor, Tensor]:
        """Logits [B * N, C] and offsets [B * N, 4 * C] of proposals, arbitrary where they are not valid.

        A CPU leaves those out, which are half of them where the input is small.
        """
        rois, levels = rois_of(proposals, side)
        rows = valid.flatten().nonzero()[:, 0] if eager_on_cpu(valid) else None
        if rows is None or len(rows) == len(rois):
            found = self.predictor(self.box_head(self.kernels.roi_align(maps, rois, levels)))
            return cast(tuple[Tensor, Tensor], found)
        found = self.predictor(self.box_head(self.kernels.roi_align(maps, rois[rows], levels[rows])))
        logits, offsets = (x.new_zeros(len(rois), x.shape[1]).index_copy(0, rows, x) for x in found)
        return logits, offsets

    def anchors_at(self, side: int) -> Tensor:
        """The anchors of an input of `side` pixels, as `priors`."""
        if side == self.config.input_size:
            return self.priors
        return _anchors_of(self.config, side, self.priors.device)

    def with_kernels(self, kernels: Kernels) -> "FasterRCNN":
        """This network, all of its layers and weights shared, with other kernels."""
        other = copy.copy(self)
        other.kernels = kernels
        return other

    @staticmethod
    def loss_settings(params: TrainParams) -> dict[str, Any]:
        """The fields of `RoILossSettings`, from the `train` section."""
        return params.model_dump(include={field.name for field in fields(RoILossSettings)})

    def criterion(self, settings: Mapping[str, Any], side: int) -> FasterRCNNLoss:
        """The criterion for inputs of `side` pixels; settings: the fields of `RoILossSettings`."""
        return FasterRCNNLoss(self.anchors_at(side), self.config, RoILossSettings(**settings))

    def postprocessor(self, settings: PostProcessSettings, nms: NMS = nms_mask) -> RoIPostProcessor:
        """The post-processor for inputs of the configured size."""
        return RoIPostProcessor(self.config, settings, nms)

    def class_heads(self) -> dict[str, tuple[Tensor, Tensor]]:
        """What predicts the classes: weight [A, C, ...] and bias [A, C] of layers by name; views."""
        heads = {}
        for name, number in (("cls_score", 1), ("bbox_pred", 4)):
            layer = cast(nn.Linear, self.predictor.get_submodule(name))
            by_class = (x.data.view(-1, number, *x.shape[1:]) for x in (layer.weight, layer.bias))
            weight, bias = (x.transpose(0, 1) for x in by_class)
            heads[f"predictor.{name}"] = (weight, bias)
        return heads


@lru_cache(maxsize=32)
def _anchors_of(config: FasterRCNNConfig, side: int, device: torch.device) -> Tensor:
    """Kept, because a training at several sizes needs them in every step, and a copy to a GPU is a sync."""
    # Autograd takes none that were made in inference mode.
    with torch.inference_mode(False):
        return config.anchors_at(side).to(device)
