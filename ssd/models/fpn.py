"""Feature pyramid network (FPN), of both families of detectors."""

from torch import Tensor, nn
from torch.nn import functional as F


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
