"""Feature maps of any torchvision or timm network, by its name; layers are found by their output stride."""

import difflib
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from ssd.errors import UserError, first_line

PROBE_SIDE = 256
STAGE_STRIDES = (2, 4, 8, 16, 32)
USUAL_STRIDES = (8, 16, 32)

# Exceptions to taking the last module of a stride: SSDLite uses the expansion layer of the block that halves
# the feature map (Howard et al., "Searching for MobileNetV3", ICCV 2019, section 6.3), at stride 16 and 32.
PUBLISHED_NODES: dict[str, dict[int, str]] = {
    "mobilenet_v3_large": {16: "features.13.block.0", 32: "features.16"},
}


class BlockOutput(NamedTuple):
    """Output of a block: its stride, None if it is no square feature map; whether the channels come last."""

    stride: int | None
    channels_last: bool


class ExtractedFeatures(nn.Module):
    """A network that returns its feature maps as a list, finest first.

    Args:
        body: returns a dict or a list of feature maps.
        stages: names of the modules of `body` that make up each stage.
        channels_last: whether each map of `body` is [B, H, W, C], as those of Swin are.
    """

    def __init__(self, body: nn.Module, stages: list[list[str]], channels_last: list[bool]) -> None:
        super().__init__()
        self.body = body
        self._stages = stages
        self._channels_last = channels_last

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalised images [B, 3, S, S] to feature maps [B, C_i, H_i, W_i]."""
        with _sizes_are_constants() if torch._C._get_tracing_state() else nullcontext():
            maps = self.body(images)
        maps = maps.values() if isinstance(maps, dict) else maps
        return [
            x.permute(0, 3, 1, 2) if last else x for x, last in zip(maps, self._channels_last, strict=True)
        ]

    def stages(self) -> list[list[nn.Module]]:
        """Its modules in forward order: the stem, then by stride: 4, 8, 16 and 32."""
        parts = dict(self.body.named_modules())
        return [[parts[name] for name in names if name in parts] for names in self._stages]


@contextmanager
def _sizes_are_constants() -> Iterator[None]:
    """Suppress the tracer's warnings of sizes by which Swin decides: a trace has one input size.

    The number of images stays dynamic: no network decides by it, and the export stage compares batches.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield


def build_extractor(name: str, strides: tuple[int, ...]) -> ExtractedFeatures:
    """A network of torchvision, or of timm by `timm/NAME`, with randomly initialised weights.

    Args:
        name: as above.
        strides: pixels per cell of the requested feature maps; () takes 8, 16 and 32, or those in
            PUBLISHED_NODES.

    Raises:
        UserError: there is no such network, or it has no feature maps, or none of these strides.
    """
    if name.startswith("timm/"):
        return _timm_extractor(name, strides)
    network = _torchvision_network(name)
    published = PUBLISHED_NODES.get(name, {})
    blocks = _probe(network, name)
    nodes = {output.stride: block for block, output in blocks.items() if output.stride} | published
    _check(name, strides, nodes)
    strides = strides or tuple(published) or USUAL_STRIDES
    try:
        body = create_feature_extractor(network, {nodes[stride]: str(stride) for stride in strides})
    except Exception as error:  # noqa: BLE001 (torch.fx passes on any exception of the network)
        raise UserError(
            f"{name} has no usable feature maps ({first_line(error)}); choose another", key="model.backbone"
        ) from None
    channels_last = [blocks[node].channels_last if (node := nodes[s]) in blocks else False for s in strides]
    return ExtractedFeatures(body, _stages(blocks), channels_last)


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
    if name.startswith("timm/swin"):
        options["strict_img_size"] = False  # otherwise it takes images of one size
    try:
        network: nn.Module = timm.create_model(name.removeprefix("timm/"), features_only=True, **options)
    except (RuntimeError, ValueError, AttributeError, TypeError) as error:
        near = difflib.get_close_matches(name.removeprefix("timm/"), timm.list_models(), n=3)
        hint = f"; did you mean {', '.join(f'timm/{other}' for other in near)}?" if near else ""
        raise UserError(
            f"{name} has no feature maps ({first_line(error)}){hint}", key="model.backbone"
        ) from None
    if name.startswith("timm/swin"):
        for module in network.modules():
            if isinstance(module, timm.layers.PatchEmbed):
                module.dynamic_img_pad = True  # otherwise it takes sides that are multiples of 4 alone
    return network


def _timm_extractor(name: str, strides: tuple[int, ...]) -> ExtractedFeatures:
    with torch.device("meta"):
        reductions = cast(Any, timm_network(name)).feature_info.reduction()
    places = {stride: place for place, stride in enumerate(reductions)}
    _check(name, strides, places)
    strides = strides or USUAL_STRIDES
    body = timm_network(name, tuple(places[stride] for stride in strides))
    channels_last = cast(Any, body).output_fmt == "NHWC"
    return ExtractedFeatures(body, _stages(_probe(body, name)), [channels_last] * len(strides))


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


def _probe(network: nn.Module, name: str) -> dict[str, BlockOutput]:
    """The blocks of a network, in forward order, and what each puts out.

    A block is a child, or a child of a Sequential child.
    """
    blocks: dict[str, BlockOutput] = {}
    with torch.device("meta"):
        probe = timm_network(name) if name.startswith("timm/") else _torchvision_network(name)
    hooks = [module.register_forward_hook(_note(blocks, block)) for block, module in _blocks(probe)]
    try:
        with torch.no_grad():
            probe.eval()(torch.empty(1, 3, PROBE_SIDE, PROBE_SIDE, device="meta"))
    except Exception as error:  # noqa: BLE001 (networks raise exceptions of any type)
        raise UserError(
            f"{name} does not take images of every size: it fails at {PROBE_SIDE}x{PROBE_SIDE} pixels "
            f"({first_line(error)}); choose another",
            key="model.backbone",
        ) from None
    for hook in hooks:
        hook.remove()
    return blocks


def size_error(name: str, side: int, error: Exception) -> UserError:
    """The error for a network that fails on images of `side` x `side` pixels."""
    return UserError(
        f"{name} does not take images of {side}x{side} pixels ({first_line(error)}); choose another",
        key="model.backbone",
    )


def _blocks(network: nn.Module) -> list[tuple[str, nn.Module]]:
    found = []
    for name, child in network.named_children():
        parts = list(child.named_children()) if isinstance(child, nn.Sequential) else []
        found += [(f"{name}.{part}", module) for part, module in parts] or [(name, child)]
    return found


def _note(blocks: dict[str, BlockOutput], name: str) -> Callable[[nn.Module, Any, Any], None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        _, *shape = output.shape if isinstance(output, Tensor) and output.ndim == 4 else (1, 1, 1, 1)
        channels_last = shape[0] == shape[1] != shape[2]
        height, width = shape[:2] if channels_last else shape[1:]
        stride = PROBE_SIDE / height if height == width > 1 else None
        blocks[name] = BlockOutput(int(stride) if stride in STAGE_STRIDES else None, channels_last)

    return note


def _stages(blocks: dict[str, BlockOutput]) -> list[list[str]]:
    """Names of the blocks of each stage, by stride; a stem that has stride 4 itself is a stage of its own."""
    stages = [[name for name, found in blocks.items() if found.stride == stride] for stride in STAGE_STRIDES]
    if not stages[0]:
        stages[:2] = [stages[1][:-1], stages[1][-1:]]
    return stages


def _check(name: str, strides: tuple[int, ...], places: Collection[int]) -> None:
    """Raise a UserError unless there are feature maps of the requested strides, or of the usual ones."""
    if set(strides or PUBLISHED_NODES.get(name, USUAL_STRIDES)) <= set(places):
        return
    known = f"{name} has feature maps of strides {sorted(places)}"
    if not places:
        raise UserError(
            f"{name} has no feature maps of 1/8, 1/16 or 1/32 of the image; choose another",
            key="model.backbone",
        )
    if strides:
        raise UserError(f"found {list(strides)}; {known}", key="model.strides")
    raise UserError(f"{known}, not 8, 16 and 32; choose another, or set model.strides", key="model.backbone")
