"""A feature pyramid: fine maps learn from coarse ones what they show."""

from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """Feature pyramid network (Lin et al., CVPR 2017, section 3).

    Unlike torchvision's, it takes fewer maps as well, as a smaller input gives: the finest ones.

    Args:
        channels: of each map, finest first.
        width: channels of every map that comes out.
    """

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(number, width, 1) for number in channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None, "made with one"
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [B, C_i, H_i, W_i], finest first, to maps [B, width, H_i, W_i]."""
        laterals = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=False)]
        for level in range(len(laterals) - 2, -1, -1):
            coarser = F.interpolate(laterals[level + 1], size=laterals[level].shape[-2:], mode="nearest")
            laterals[level] = laterals[level] + coarser
        return [output(x) for output, x in zip(self.output, laterals, strict=False)]
