"""Backbones: classification networks as extractors of SSD's feature maps."""

from typing import cast

from torch import Tensor, nn
from torchvision.models import ResNet, resnet

from ssd.errors import UserError
from ssd.models.extractors import ExtractedFeatures, build_extractor
from ssd.models.vgg import VGG16Features

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


class ResNetFeatures(nn.Module):
    """A torchvision ResNet without its classifier; returns the feature maps of layer2, layer3 and layer4.

    Their strides are 8, 16 and 32: 38, 19 and 10 cells per side at 300 pixels. The sub-modules keep
    torchvision's names, so that its state dicts load.

    Args:
        network: its sub-modules are used, not copied.
        strides: of the requested feature maps: some of 4 (layer1), 8, 16 and 32.
    """

    def __init__(self, network: ResNet, strides: tuple[int, ...] = (8, 16, 32)) -> None:
        super().__init__()
        self.strides = strides
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.relu, self.maxpool = network.relu, network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        if strides[-1] >= 16:
            self.layer3 = network.layer3
        if strides[-1] == 32:
            self.layer4 = network.layer4

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, S, S] to feature maps [B, C_i, H_i, W_i], finest first."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps, stride = [], 4
        for layer in self._layers():
            x = layer(x)
            if stride in self.strides:
                maps.append(x)
            stride *= 2
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Its modules in forward order: the stem, then the layers."""
        return [[self.conv1, self.bn1], *([layer] for layer in self._layers())]

    def _layers(self) -> list[nn.Module]:
        layers = {name: module for name, module in self.named_children() if name.startswith("layer")}
        return [layers[name] for name in sorted(layers)]


Backbone = ResNetFeatures | VGG16Features | ExtractedFeatures


def build_backbone(name: str, strides: tuple[int, ...] = ()) -> Backbone:
    """A backbone with randomly initialised weights.

    It takes normalised images [B, 3, S, S] and returns a list of feature maps, finest first. Its `stages()`
    are lists of modules in forward order, up to five, for freezing and layer-wise learning rates.

    Args:
        name: resnet18 to resnet152, vgg16, another of torchvision's classification networks, or timm/NAME.
        strides: pixels per cell of the requested feature maps; () takes the defaults of the network.

    Raises:
        UserError: there is no such network, or it has no feature maps of these strides.
    """
    if name in RESNETS:
        _check_strides(name, strides, (4, 8, 16, 32))
        # The last batch norm of every residual block starts at zero, so that each block is the identity at
        # first (Goyal et al., "Accurate, Large Minibatch SGD", section 5.1): it helps most from scratch.
        network = cast(ResNet, getattr(resnet, name)(weights=None, zero_init_residual=True))
        return ResNetFeatures(network, strides or (8, 16, 32))
    if name == "vgg16":
        _check_strides(name, strides, (8, 16), together=True)
        return VGG16Features()
    return build_extractor(name, strides)


def _check_strides(
    name: str, strides: tuple[int, ...], possible: tuple[int, ...], *, together: bool = False
) -> None:
    if strides in ((), possible) or (not together and set(strides) <= set(possible) and strides[-1] >= 8):
        return
    allowed = list(possible) if together else f"some of {list(possible)}, the last at least 8"
    raise UserError(f"found {list(strides)}; allowed for {name}: {allowed}, or []", key="model.strides")
