"""Backbones: classification networks cut into the feature maps that SSD reads."""

import urllib.error
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import (
    ResNet,
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    WeightsEnum,
    resnet,
)

from ssd.errors import UserError

# V1 everywhere: it is what torchvision's own detectors start from.
IMAGENET_WEIGHTS: dict[str, WeightsEnum] = {
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": ResNet50_Weights.IMAGENET1K_V1,
}


class ResNetFeatures(nn.Module):
    """A torchvision ResNet without its classifier; gives the maps of layer2, layer3 and layer4.

    Their strides are 8, 16 and 32: 38, 19 and 10 cells a side at 300 pixels. The sub-modules keep
    torchvision's names, so that its state dicts load.
    """

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.relu, self.maxpool = network.relu, network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, S, S] to three maps [B, C_i, H_i, W_i], finest first."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        layer2 = self.layer2(self.layer1(x))
        layer3 = self.layer3(layer2)
        return [layer2, layer3, self.layer4(layer3)]

    def stages(self) -> list[list[nn.Module]]:
        """Its parts in the order of the data: the stem, then the four layers."""
        return [[self.conv1, self.bn1], [self.layer1], [self.layer2], [self.layer3], [self.layer4]]


def build_backbone(name: str) -> ResNetFeatures:
    """A backbone with fresh weights; `name` is resnet18, resnet34 or resnet50.

    The last norm of every residual block starts at zero, so that each block starts as the identity
    (Goyal et al., "Accurate, Large Minibatch SGD", section 5.1): it helps most when training from scratch.
    """
    return ResNetFeatures(getattr(resnet, name)(weights=None, zero_init_residual=True))


def load_backbone_weights(backbone: nn.Module, name: str, weights: str) -> None:
    """Load `weights` into a backbone, in place.

    Args:
        backbone: what `build_backbone(name)` gave.
        name: the backbone's name.
        weights: "none" leaves the fresh weights; "imagenet" fetches torchvision's (kept in torch's hub
            folder); anything else is a state-dict file (.safetensors, or .pth loaded without pickle).

    Raises:
        UserError: the weights cannot be fetched or read, or do not fit. Never a silent start from scratch.
    """
    if weights == "none":
        return
    state = _fetch(IMAGENET_WEIGHTS[name]) if weights == "imagenet" else _read(Path(weights))
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"params.yaml: model.weights: {weights} does not fit {name}: {reason}") from None


def _fetch(weights: WeightsEnum) -> dict[str, Tensor]:
    """torchvision's weights, by its own URL; the file name holds the digest that is checked."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"params.yaml: model.weights: imagenet could not be fetched ({error}); put {weights.url} "
            f"into {folder}, or name a state-dict file, or set none to train from scratch"
        ) from None
    return state


def _read(path: Path) -> dict[str, Tensor]:
    where = f"params.yaml: model.weights: {path}"
    if not path.is_file():
        raise UserError(
            f"{where}: no such file; allowed: imagenet, none, or a .safetensors or .pth state dict"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch and safetensors raise a dozen types)
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{where}: not a state dict that loads without pickle: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{where}: not a state dict (a mapping of names to tensors)")
    return state
