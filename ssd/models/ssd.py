"""The SSD network: backbone, auxiliary convolutions, neck, heads. Raw outputs, the same in train and eval."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import Tensor, nn

from ssd.loss import LossSettings, MultiBoxLoss
from ssd.matching import Matches
from ssd.models.auxiliary import auxiliary_stage
from ssd.models.backbones import build_backbone
from ssd.models.config import SSDConfig
from ssd.models.feature_maps import feature_maps
from ssd.models.fpn import FPN
from ssd.models.heads import Heads, by_class
from ssd.models.kernels import Kernels
from ssd.models.priors import make_priors
from ssd.params import TrainParams
from ssd.postprocess import NMS, PostProcessor, PostProcessSettings, nms_mask


class SSD(nn.Module):
    """Single Shot MultiBox Detector (Liu et al., ECCV 2016) on any backbone.

    Feature maps of the backbone, then of auxiliary convolutions that halve the last one down to 1x1;
    optionally a feature pyramid (FPN) over all of them; then the heads.

    Attributes:
        priors: float32 [P, 4], cxcywh, normalised to [0, 1]. Computed, never saved.
    """

    priors: Tensor

    def __init__(self, config: SSDConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.backbone = build_backbone(config.backbone, config.strides, config.input_scale)
        own, more = config.map_shapes()
        self.auxiliary = nn.ModuleList(
            auxiliary_stage(config.auxiliary, number, width, side)
            for number, (width, side, _) in enumerate([own[-1], *more[:-1]] if more else [])
        )
        channels = [width for width, _, _ in own + more]
        self.neck = FPN(channels, config.width) if config.neck == "fpn" else None
        self.heads = Heads(config, [config.width] * len(channels) if self.neck else channels)
        self.register_buffer("priors", self.priors_at(config.input_size), persistent=False)
        for module in self.auxiliary.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.heads.initialise()

    def forward(self, images: Tensor, matches: Matches | None = None) -> tuple[Tensor, Tensor]:
        """Raw outputs.

        Args:
            images: [B, 3, S, S], normalised; S is the configured input size, or in training another one
                (see `priors_at`).
            matches: not used: the outputs of SSD do not depend on the targets.

        Returns:
            loc [B, P, 4], offsets from the priors; logits [B, P, C], background first.
        """
        maps = feature_maps(self.backbone, list(self.auxiliary), images)
        loc, logits = self.heads(self.neck(maps) if self.neck else maps)
        return loc, logits

    def priors_at(self, side: int) -> Tensor:
        """The priors of an input of `side` pixels: float32 [P, 4], cxcywh, normalised to [0, 1].

        Levels keep their shapes at every size; for their centres see `SSDConfig.levels_at`. At a smaller size
        the last levels may have no feature map.
        """
        return make_priors(self.config.map_sizes(side), self.config.levels_at(side))

    def with_kernels(self, kernels: Kernels) -> "SSD":
        """This network: it has none of the kernels, its post-processor has."""
        return self

    @staticmethod
    def loss_settings(params: TrainParams) -> dict[str, Any]:
        """The fields of `LossSettings`, from the `train` section."""
        return params.model_dump(include={field.name for field in fields(LossSettings)})

    def criterion(self, settings: Mapping[str, Any], side: int) -> MultiBoxLoss:
        """The criterion for inputs of `side` pixels, on the CPU; settings: the fields of `LossSettings`."""
        return MultiBoxLoss(self.priors_at(side), LossSettings(**settings))

    def postprocessor(self, settings: PostProcessSettings, nms: NMS = nms_mask) -> PostProcessor:
        """The post-processor for inputs of the configured size, on the model's device."""
        return PostProcessor(self.priors, settings, nms)

    def class_heads(self) -> dict[str, tuple[Tensor, Tensor]]:
        """What predicts the classes: weight [A, C, ...] and bias [A, C] of layers by name; views."""
        return {
            f"heads.conf.{level}": by_class(head, self.num_classes)
            for level, head in enumerate(self.heads.conf)
        }
