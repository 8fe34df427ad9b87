"""The feature maps of a network: the backbone's, then those of the auxiliary convolutions."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from ssd.models.auxiliary import Kind, auxiliary_stage, fits
from ssd.models.backbones import build_backbone

Shape = tuple[int, int, int]
"""(channels, height, width) of a map."""

Shapes = tuple[tuple[Shape, ...], tuple[Shape, ...]]
"""Those of the backbone's maps, and those of the auxiliary stages'; finest first."""


def feature_maps(backbone: nn.Module, auxiliary: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    """Maps of normalised images [B, 3, S, S], finest first: [B, C_i, H_i, W_i] each.

    At a smaller size than the network was made for, the last auxiliary stages may have nothing to work on;
    then there are fewer maps.
    """
    maps: list[Tensor] = backbone(images)
    for stage in auxiliary:
        # A trace has the size that the network was made for, at which every stage fits.
        if not torch._C._get_tracing_state() and not fits(stage, maps[-1].shape[-1]):
            break
        maps.append(stage(maps[-1]))
    return maps


@lru_cache
def map_shapes(
    backbone: str, strides: tuple[int, ...], kind: Kind, input_size: int, side: int | None = None
) -> Shapes:
    """The shapes of `feature_maps`, read off a run on the device "meta", that is without any arithmetic.

    Args:
        backbone, strides: as `build_backbone` takes them.
        kind: of the auxiliary stages, of which there are as many as it takes to 1x1 at `input_size`.
        input_size: pixels, that the network is made for.
        side: pixels, of the images; None for `input_size`.

    Raises:
        UserError: there is no such backbone, or it has no maps of these strides.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        body = build_backbone(backbone, strides).eval()
        maps: list[Tensor] = body(torch.empty(1, 3, input_size, input_size))
        num_own = len(maps)
        stages: list[nn.Module] = []
        while maps[-1].shape[-1] > 1:
            _, channels, cells, _ = maps[-1].shape
            stages.append(auxiliary_stage(kind, len(stages), channels, cells).eval())
            maps.append(stages[-1](maps[-1]))
        if side is not None and side != input_size:
            maps = feature_maps(body, stages, torch.empty(1, 3, side, side))
    shapes = [(x.shape[1], x.shape[2], x.shape[3]) for x in maps]
    return tuple(shapes[:num_own]), tuple(shapes[num_own:])
