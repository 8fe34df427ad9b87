"""The SSD network: backbone, auxiliary convolutions, neck, heads. Raw outputs, the same in train and eval."""

from torch import Tensor, nn
from torch.nn import functional as F

from ssd.models.auxiliary import auxiliary_stage
from ssd.models.backbones import build_backbone
from ssd.models.config import SSDConfig
from ssd.models.feature_maps import feature_maps
from ssd.models.heads import Heads
from ssd.models.priors import make_priors


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

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw outputs.

        Args:
            images: [B, 3, S, S], normalised; S is the configured input size, or in training another one
                (see `priors_at`).

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


class FPN(nn.Module):
    """Feature pyramid network (Lin et al., CVPR 2017, section 3).

    Unlike torchvision's, it also accepts fewer feature maps, the finest ones, as a smaller input has.

    Args:
        channels: of each feature map, finest first.
        width: channels of every output map.
    """

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(number, width, 1) for number in channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None, "created with a bias"
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Feature maps [B, C_i, H_i, W_i], finest first, to feature maps [B, width, H_i, W_i]."""
        laterals = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=False)]
        for level in range(len(laterals) - 2, -1, -1):
            coarser = F.interpolate(laterals[level + 1], size=laterals[level].shape[-2:], mode="nearest")
            laterals[level] = laterals[level] + coarser
        return [output(x) for output, x in zip(self.output, laterals, strict=False)]
