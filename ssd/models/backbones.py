"""Backbones: classification networks as extractors of SSD's feature maps."""

from typing import cast

from torch import Tensor, nn
from torchvision.models import ResNet, resnet

from ssd.errors import UserError
from ssd.models.extractors import ExtractedFeatures, build_extractor
from ssd.models.vgg import InputScale, VGG16Features

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
CONV4 = "_conv4"
"""Suffix of a ResNet that ends with conv4 (layer3) at stride 8, as in MLPerf's and NVIDIA's SSD300."""

LAYERS = {4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
CONV4_LAYERS = {4: "layer1", 8: "layer3"}
"""The layer that gives the feature map of each stride."""


class ResNetFeatures(nn.Module):
    """A torchvision ResNet without its classifier; returns the feature maps of some of its layers.

    layer2, layer3 and layer4 have strides 8, 16 and 32: 38, 19 and 10 cells per side at 300 pixels. The
    sub-modules keep torchvision's names, so that its state dicts load.

    Args:
        network: its sub-modules are used, not copied.
        returned: names of the layers, in forward order; those after the last are left out.
    """

    def __init__(self, network: ResNet, returned: tuple[str, ...]) -> None:
        super().__init__()
        self.returned = returned
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.relu, self.maxpool = network.relu, network.maxpool
        for name in LAYERS.values():
            if name <= returned[-1]:
                self.add_module(name, network.get_submodule(name))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, S, S] to feature maps [B, C_i, H_i, W_i], finest first."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for name, layer in self._layers():
            x = layer(x)
            if name in self.returned:
                maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Its modules in forward order: the stem, then the layers."""
        return [[self.conv1, self.bn1], *([layer] for _, layer in self._layers())]

    def _layers(self) -> list[tuple[str, nn.Module]]:
        return [(name, module) for name, module in self.named_children() if name.startswith("layer")]


Backbone = ResNetFeatures | VGG16Features | ExtractedFeatures


def build_backbone(
    name: str, strides: tuple[int, ...] = (), input_scale: InputScale = "imagenet"
) -> Backbone:
    """A backbone with randomly initialised weights.

    It takes normalised images [B, 3, S, S] and returns a list of feature maps, finest first. Its `stages()`
    are lists of modules in forward order, up to five, for freezing and layer-wise learning rates.

    Args:
        name: resnet18 to resnet152, the same with the suffix CONV4, vgg16, another of torchvision's
            classification networks, or timm/NAME.
        strides: pixels per cell of the requested feature maps; () takes the defaults of the network.
        input_scale: of vgg16's weights; all other networks take normalised images as they are.

    Raises:
        UserError: there is no such network, or it has no feature maps of these strides.
    """
    if name.removesuffix(CONV4) in RESNETS:
        return _build_resnet(name, strides)
    if name == "vgg16":
        _check_strides(name, strides, (8, 16), together=True)
        return VGG16Features(input_scale)
    return build_extractor(name, strides)


def _build_resnet(name: str, strides: tuple[int, ...]) -> ResNetFeatures:
    base = name.removesuffix(CONV4)
    layers, usual = (LAYERS, (8, 16, 32)) if name == base else (CONV4_LAYERS, (8,))
    _check_strides(name, strides, tuple(layers))
    # The last batch norm of every residual block starts at zero, so that each block is the identity at
    # first (Goyal et al., "Accurate, Large Minibatch SGD", section 5.1): it helps most from scratch.
    network = cast(ResNet, getattr(resnet, base)(weights=None, zero_init_residual=True))
    if name != base:
        for module in network.layer3[0].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    return ResNetFeatures(network, tuple(layers[stride] for stride in strides or usual))


def _check_strides(
    name: str, strides: tuple[int, ...], possible: tuple[int, ...], *, together: bool = False
) -> None:
    if strides in ((), possible) or (not together and set(strides) <= set(possible) and strides[-1] >= 8):
        return
    allowed = list(possible) if together else f"some of {list(possible)}, the last at least 8"
    raise UserError(f"found {list(strides)}; allowed for {name}: {allowed}, or []", key="model.strides")
