"""The shapes that are read off a run without arithmetic are those of the maps that a network gives."""

import pytest
import torch

from ssd.models.auxiliary import NORMED, PLAIN, Auxiliary, auxiliary_stage, fits
from ssd.models.config import paper_config
from ssd.models.feature_maps import feature_maps, map_shapes
from ssd.models.ssd import SSD


@pytest.mark.parametrize("backbone", ["resnet18", "resnet18_conv4", "vgg16", "mobilenet_v3_large"])
@pytest.mark.parametrize("side", [64, 96, 200])
def test_shapes_are_those_of_a_real_run_at_any_size(backbone: str, side: int) -> None:
    heads = "ssdlite" if backbone == "mobilenet_v3_large" else "conv3x3"
    config = paper_config(backbone, 160, 3, heads=heads)
    model = SSD(config).eval()
    with torch.inference_mode():
        maps = feature_maps(model.backbone, list(model.auxiliary), torch.zeros(1, 3, side, side))
    own, more = config.map_shapes(side)
    assert [tuple(x.shape[1:]) for x in maps] == [*own, *more]
    assert config.map_sizes(side) == [tuple(x.shape[2:]) for x in maps]


def test_the_last_map_has_one_cell_at_the_size_that_the_network_is_made_for() -> None:
    for size in (64, 100, 128, 300, 512):
        _, more = map_shapes("resnet18", (), NORMED, size)
        assert more[-1][1:] == (1, 1)
        _, more = map_shapes("resnet18", (), Auxiliary("single", (256,)), size)
        assert more[-1] == (256, 1, 1)


def test_shapes_at_the_size_that_the_network_is_made_for_are_read_off_once() -> None:
    shapes = map_shapes("resnet18", (), NORMED, 96)
    assert map_shapes("resnet18", (), NORMED, 96, 96) is shapes
    assert map_shapes("resnet18", (), NORMED, 96, 64) != shapes


def test_single_stages_are_one_convolution_of_stride_2_each() -> None:
    """C5 to C7 of the small-data recipe: 10x10, 5x5, 3x3, 1x1."""
    model = SSD(paper_config("resnet34", 300, 2, heads="conv1x1", width=64))
    for stage, channels in zip(model.auxiliary, (512, 64, 64), strict=True):
        convolution, norm, activation = stage
        assert (convolution.in_channels, convolution.out_channels) == (channels, 64)
        assert (convolution.kernel_size, convolution.stride) == ((3, 3), (2, 2))
        assert isinstance(norm, torch.nn.BatchNorm2d)
        assert isinstance(activation, torch.nn.ReLU)
    assert model.config.map_sizes() == [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]


def test_a_stage_follows_what_is_large_enough_for_it_and_never_a_single_cell() -> None:
    padded, plain = (auxiliary_stage(PLAIN, 0, 8, side) for side in (4, 5))
    assert [fits(padded, side) for side in (1, 2, 3)] == [False, True, True]
    assert [fits(plain, side) for side in (1, 2, 3)] == [False, False, True]


def test_reading_shapes_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    map_shapes("resnet34", (4, 8), NORMED, 72)
    assert torch.equal(torch.rand(1), expected)
