"""Feature maps of any torchvision or timm network, by its name; layers are found by their output stride."""

import difflib
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from ssd.errors import UserError

PROBE_SIDE = 256
STAGE_STRIDES = (2, 4, 8, 16, 32)
USUAL_STRIDES = (8, 16, 32)

# Exceptions to taking the last module of a stride: SSDLite uses the expansion layer of the block that halves
# the feature map (Howard et al., "Searching for MobileNetV3", ICCV 2019, section 6.3), at stride 16 and 32.
PUBLISHED: dict[str, dict[int, str]] = {
    "mobilenet_v3_large": {16: "features.13.block.0", 32: "features.16"},
}


class ExtractedFeatures(nn.Module):
    """A network that returns its feature maps as a list, finest first.

    Args:
        body: returns a dict or a list of feature maps.
        stages: names of the modules of `body` that make up each stage.
    """

    def __init__(self, body: nn.Module, stages: list[list[str]]) -> None:
        super().__init__()
        self.body = body
        self._stages = stages

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, S, S] to feature maps [B, C_i, H_i, W_i]."""
        maps = self.body(images)
        return list(maps.values()) if isinstance(maps, dict) else list(maps)

    def stages(self) -> list[list[nn.Module]]:
        """Its modules in forward order, grouped by stride: 2, 4, 8, 16 and 32."""
        parts = dict(self.body.named_modules())
        return [[parts[name] for name in names if name in parts] for names in self._stages]


def build_extractor(name: str, strides: tuple[int, ...]) -> ExtractedFeatures:
    """A network of torchvision, or of timm by `timm/NAME`, with randomly initialised weights.

    Args:
        name: as above.
        strides: pixels per cell of the requested feature maps; () takes 8, 16 and 32, or those in PUBLISHED.

    Raises:
        UserError: there is no such network, or it has no feature maps, or none of these strides.
    """
    if name.startswith("timm/"):
        return _timm_extractor(name, strides or USUAL_STRIDES)
    network = _torchvision_network(name)
    published = PUBLISHED.get(name, {})
    blocks = _probe(network, name)
    nodes = {stride: block for block, stride in blocks.items() if stride is not None} | published
    strides = strides or tuple(published) or USUAL_STRIDES
    _check(name, strides, nodes)
    try:
        body = create_feature_extractor(network, {nodes[stride]: str(stride) for stride in strides})
    except Exception as error:  # noqa: BLE001 (torch.fx passes on any exception of the network)
        raise _no_maps(name, error) from None
    return ExtractedFeatures(body, _stages(blocks))


def timm_network(name: str, out_indices: tuple[int, ...] | None = None, **options: Any) -> nn.Module:
    """`timm.create_model(..., features_only=True)` by `timm/NAME`.

    Raises:
        UserError: timm is not installed, has no such network, or cannot extract feature maps from it.
    """
    try:
        import timm
    except ImportError:
        raise UserError(
            f"{name} needs the package timm; pip install timm, or choose another", key="model.backbone"
        ) from None
    if out_indices is not None:
        options["out_indices"] = out_indices
    try:
        network: nn.Module = timm.create_model(name.removeprefix("timm/"), features_only=True, **options)
    except (RuntimeError, ValueError, AttributeError, TypeError) as error:
        near = difflib.get_close_matches(name.removeprefix("timm/"), timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(f'timm/{other}' for other in near)}?" if near else ""
        raise UserError(
            f"{name} has no feature maps ({str(error).splitlines()[0][:200]}){hint}", key="model.backbone"
        ) from None
    return network


def _timm_extractor(name: str, strides: tuple[int, ...]) -> ExtractedFeatures:
    with torch.device("meta"):
        reductions = cast(Any, timm_network(name)).feature_info.reduction()
    places = {stride: place for place, stride in enumerate(reductions)}
    _check(name, strides, places)
    body = timm_network(name, tuple(places[stride] for stride in strides))
    return ExtractedFeatures(body, _stages(_probe(body, name)))


def _torchvision_network(name: str) -> nn.Module:
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["resnet50", "vgg16", "mobilenet_v3_large"]
        raise UserError(
            f"found {name!r}; allowed: a classification network of torchvision, "
            f"such as {', '.join(near)}, or timm/NAME",
            key="model.backbone",
        )
    device = torch.get_default_device()
    with torch.device("cpu"):  # some networks compute with their weights in the constructor
        network = models.get_model(name, weights=None)
    moved: nn.Module = network.to(device)
    return moved


def _probe(network: nn.Module, name: str) -> dict[str, int | None]:
    """The blocks of a network, in forward order, and the stride of the output of each.

    A block is a child, or a child of a Sequential child; None where the output is no square feature map
    [B, C, H, W].
    """
    blocks: dict[str, int | None] = {}
    with torch.device("meta"):
        probe = timm_network(name) if name.startswith("timm/") else _torchvision_network(name)
    hooks = [module.register_forward_hook(_note(blocks, block)) for block, module in _blocks(probe)]
    try:
        with torch.no_grad():
            probe.eval()(torch.empty(1, 3, PROBE_SIDE, PROBE_SIDE, device="meta"))
    except Exception as error:  # noqa: BLE001 (networks raise exceptions of any type)
        raise _no_maps(name, error) from None
    for hook in hooks:
        hook.remove()
    return blocks


def _no_maps(name: str, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"{name} has no usable feature maps ({reason}); choose another", key="model.backbone")


def _blocks(network: nn.Module) -> list[tuple[str, nn.Module]]:
    found = []
    for name, child in network.named_children():
        parts = list(child.named_children()) if isinstance(child, nn.Sequential) else []
        found += [(f"{name}.{part}", module) for part, module in parts] or [(name, child)]
    return found


def _note(blocks: dict[str, int | None], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        square = isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] > 1
        stride = PROBE_SIDE / output.shape[3] if square else None
        blocks[name] = int(stride) if stride in STAGE_STRIDES else None

    return note


def _stages(blocks: dict[str, int | None]) -> list[list[str]]:
    return [[name for name, found in blocks.items() if found == stride] for stride in STAGE_STRIDES]


def _check(name: str, strides: tuple[int, ...], places: dict[int, Any]) -> None:
    if not set(strides) <= set(places):
        raise UserError(
            f"found {list(strides)}; {name} has feature maps of strides {sorted(places)}", key="model.strides"
        )
