"""From the `model` section to a network: priors, levels, and what does not fit."""

from collections.abc import Callable

import pytest
import torch

from ssd.errors import UserError
from ssd.models.config import SSDConfig, map_sides, model_config, paper_config
from ssd.models.priors import PriorLevel
from ssd.models.ssd import SSD
from ssd.params import Params

MakeParams = Callable[..., Params]
FOUR_A_CELL = {
    "model.priors": "table",
    "model.prior_scales": [0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05],
    "model.prior_ratios": [[1.0, 2.0, 0.5]] * 6,
}


def num_priors(make_params: MakeParams, **changes: object) -> int:
    params = make_params(**{f"model.{key}": value for key, value in changes.items()}).model
    return len(SSD(model_config(params, 3)).priors)


@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_300_pixels_have_8732_priors_and_512_have_24564(make_params: MakeParams, backbone: str) -> None:
    assert num_priors(make_params, backbone=backbone, input_size=300) == 8732
    scales = {"scale_first": 0.07, "scale_second": 0.15}
    assert num_priors(make_params, backbone=backbone, input_size=512, **scales) == 24564


def test_four_a_cell_are_7760(make_params: MakeParams) -> None:
    params = make_params(**FOUR_A_CELL, **{"model.input_size": 300}).model
    assert len(SSD(model_config(params, 2)).priors) == 7760


def test_a_level_has_the_shapes_of_its_scale_and_ratios(make_params: MakeParams) -> None:
    """The extra square comes second; what is longer than the image is cut to it."""
    params = make_params(**FOUR_A_CELL, **{"model.input_size": 300}).model
    levels = model_config(params, 2).levels
    square, extra, wide, tall = levels[0].shapes
    assert square == pytest.approx((0.1, 0.1))
    assert extra == pytest.approx((0.02**0.5, 0.02**0.5))
    assert wide == pytest.approx((0.1 * 2**0.5, 0.1 / 2**0.5))
    assert tall == pytest.approx(wide[::-1])
    assert levels[-1].shapes[2] == pytest.approx((1.0, 0.88 / 2**0.5))


def test_steps_set_the_centres_apart(make_params: MakeParams) -> None:
    steps = {"model.prior_steps": [8, 16, 32, 64, 100, 300], "model.input_size": 300}
    priors = SSD(model_config(make_params(**steps).model, 2)).priors
    centres = priors[: 38 * 4 : 4, 0] * 300
    torch.testing.assert_close(centres, torch.arange(38) * 8.0 + 4)


def test_k_means_levels_are_taken_as_they_are(make_params: MakeParams) -> None:
    params = make_params(**{"model.priors": "kmeans", "model.input_size": 64}).model
    levels = [PriorLevel(((0.1 * k, 0.2),)) for k in range(1, 5)]
    assert model_config(params, 2, levels).levels == tuple(levels)


@pytest.mark.parametrize("key", ["prior_ratios", "prior_steps"])
def test_lists_of_another_length_than_the_maps_are_one_clear_line(make_params: MakeParams, key: str) -> None:
    changes = {
        "prior_ratios": {**FOUR_A_CELL, "model.input_size": 128},
        "prior_steps": {"model.prior_steps": [8.0, 16.0], "model.input_size": 128},
    }
    with pytest.raises(
        UserError, match=rf"model.{key}: found \d of them; needed are 5, .* \(16x16, 8x8, 4x4, 2x2"
    ):
        model_config(make_params(**changes[key]).model, 2)


def test_a_config_survives_being_saved() -> None:
    from dataclasses import asdict

    config = paper_config("resnet18", 64, 3, strides=(8, 16), neck="fpn", heads="conv1x1", width=32)
    assert SSDConfig.from_state(asdict(config)) == config


@pytest.mark.parametrize(
    ("backbone", "heads", "size", "sides"),
    [
        ("resnet18", "conv3x3", 300, [38, 19, 10, 5, 3, 1]),
        ("vgg16", "conv3x3", 512, [64, 32, 16, 8, 4, 2, 1]),
        ("mobilenet_v3_large", "ssdlite", 320, [20, 10, 5, 3, 2, 1]),
    ],
)
def test_maps_are_the_published_ones(backbone: str, heads: str, size: int, sides: list[int]) -> None:
    assert map_sides(backbone, (), heads, size) == sides
