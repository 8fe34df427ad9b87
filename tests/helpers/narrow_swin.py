"""Narrow and shallow Swin networks, by name in torchvision and timm as the published ones.

Their parts, shifted windows and layouts are those of the published networks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
from timm.models.swin_transformer import swin_tiny_patch4_window7_224
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer

TORCHVISION, TIMM = "swin_narrow", "timm/swin_narrow"
WIDTH, DEPTHS, HEADS = 24, [2, 1, 1, 1], [1, 2, 4, 8]


def of_torchvision(weights: None = None) -> SwinTransformer:
    return SwinTransformer([4, 4], WIDTH, DEPTHS, HEADS, window_size=[7, 7], stochastic_depth_prob=0.2)


def of_timm(**options: Any) -> nn.Module:
    network: nn.Module = swin_tiny_patch4_window7_224(
        embed_dim=WIDTH, depths=DEPTHS, num_heads=HEADS, **options
    )
    return network


@contextmanager
def registered() -> Iterator[None]:
    """Both networks can be built by name, as torchvision's and timm's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_torchvision, "__module__", SwinTransformer.__module__)
        patch.setitem(models._api.BUILTIN_MODELS, TORCHVISION, of_torchvision)
        patch.setitem(timm.models._registry._model_entrypoints, TIMM.removeprefix("timm/"), of_timm)
        yield
