"""The shapes that are read off a run without arithmetic are those of the maps that a network gives."""

import pytest
import torch

from ssd.models.auxiliary import auxiliary_stage, fits
from ssd.models.config import paper_config
from ssd.models.feature_maps import feature_maps, map_shapes
from ssd.models.ssd import SSD


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16", "mobilenet_v3_large"])
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
        _, more = map_shapes("resnet18", (), "normed", size)
        assert more[-1][1:] == (1, 1)


def test_a_stage_follows_what_is_large_enough_for_it_and_never_a_single_cell() -> None:
    padded, plain = (auxiliary_stage("plain", 0, 8, side) for side in (4, 5))
    assert [fits(padded, side) for side in (1, 2, 3)] == [False, True, True]
    assert [fits(plain, side) for side in (1, 2, 3)] == [False, False, True]


def test_reading_shapes_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    map_shapes("resnet34", (4, 8), "normed", 72)
    assert torch.equal(torch.rand(1), expected)
