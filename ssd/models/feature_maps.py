"""The feature maps of a network: the backbone's, then those of the auxiliary convolutions."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from ssd.models.auxiliary import Auxiliary, auxiliary_stage, fits
from ssd.models.backbones import build_backbone
from ssd.models.extractors import size_error

Shape = tuple[int, int, int]
"""(channels, height, width) of a feature map."""

Shapes = tuple[tuple[Shape, ...], tuple[Shape, ...]]
"""Shapes of the backbone's feature maps, and of those of the auxiliary stages; finest first."""


def feature_maps(backbone: nn.Module, auxiliary: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    """Feature maps of normalised images [B, 3, S, S], finest first: [B, C_i, H_i, W_i] each.

    For inputs smaller than the network was built for, the last feature map may be too small for the next
    auxiliary stage; then there are fewer feature maps.
    """
    maps: list[Tensor] = backbone(images)
    for stage in auxiliary:
        # A trace has the input size that the network was built for, at which every stage fits.
        if not torch._C._get_tracing_state() and not fits(stage, maps[-1].shape[-1]):
            break
        maps.append(stage(maps[-1]))
    return maps


def map_shapes(
    backbone: str, strides: tuple[int, ...], auxiliary: Auxiliary, input_size: int, side: int | None = None
) -> Shapes:
    """The shapes of `feature_maps`, from a forward pass on the device "meta", that is without arithmetic.

    Args:
        backbone, strides: as in `build_backbone`.
        auxiliary: stages, as many as lead to a 1x1 feature map at `input_size`.
        input_size: pixels, that the network is built for.
        side: pixels, of the images; None for `input_size`.

    Raises:
        UserError: there is no such backbone, or it has no feature maps of these strides, or does not take
            images of `input_size`.
    """
    return _read_shapes(backbone, strides, auxiliary, input_size, input_size if side is None else side)


@lru_cache
def _read_shapes(
    backbone: str, strides: tuple[int, ...], auxiliary: Auxiliary, input_size: int, side: int
) -> Shapes:
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        body = build_backbone(backbone, strides).eval()
        try:
            maps: list[Tensor] = body(torch.empty(1, 3, input_size, input_size))
        except Exception as error:  # noqa: BLE001 (networks raise exceptions of any type)
            raise size_error(backbone, input_size, error) from None
        num_own = len(maps)
        stages: list[nn.Module] = []
        while maps[-1].shape[-1] > 1:
            _, channels, cells, _ = maps[-1].shape
            stages.append(auxiliary_stage(auxiliary, len(stages), channels, cells).eval())
            maps.append(stages[-1](maps[-1]))
        if side != input_size:
            maps = feature_maps(body, stages, torch.empty(1, 3, side, side))
    shapes = [(x.shape[1], x.shape[2], x.shape[3]) for x in maps]
    return tuple(shapes[:num_own]), tuple(shapes[num_own:])
