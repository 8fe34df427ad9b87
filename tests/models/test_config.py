"""From the `model` section to a network: priors, levels, and what does not fit."""

from collections.abc import Callable

import pytest
import torch

from ssd.errors import UserError
from ssd.models.config import SSDConfig, map_sides, model_config, paper_config
from ssd.models.priors import PriorLevel, make_priors
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


def test_gluoncv_s_ssd512_has_six_maps_and_6132_priors(make_params: MakeParams) -> None:
    """ssd_512_resnet50_v1: a first map of stride 16, sizes of 51.2 to 492 pixels, 4, 6, 6, 6, 4, 4 a cell."""
    few, many = [1, 2, 0.5], [1, 2, 0.5, 3, 1 / 3]
    settings = {
        "backbone": "resnet50",
        "input_size": 512,
        "strides": [16, 32],
        "priors": "table",
        "prior_scales": [size / 512 for size in (51.2, 102.4, 189.4, 276.4, 363.52, 450.6, 492)],
        "prior_ratios": [few, many, many, many, few, few],
        "prior_steps": [16, 32, 64, 128, 256, 512],
    }
    params = make_params(**{f"model.{key}": value for key, value in settings.items()}).model
    model = SSD(model_config(params, 21))
    sides = (32, 16, 8, 4, 2, 1)
    assert model.config.map_sizes() == [(side, side) for side in sides]
    assert (
        len(model.priors)
        == 6132
        == sum(side**2 * number for side, number in zip(sides, (4, 6, 6, 6, 4, 4), strict=True))
    )
    finest, last = model.priors[0] * 512, model.priors[-4:] * 512
    torch.testing.assert_close(finest, torch.tensor([8.0, 8.0, 51.2, 51.2]))
    torch.testing.assert_close(last[1], torch.tensor([256.0, 256.0, *[(450.6 * 492) ** 0.5] * 2]))


VGG_STEPS = {
    "model.backbone": "vgg16",
    "model.input_size": 300,
    "model.prior_steps": [8, 16, 32, 64, 100, 300],
}


@pytest.mark.parametrize("side", [64, 160, 299, 301, 448, 600])
def test_at_another_size_no_prior_has_its_centre_outside_the_image(
    make_params: MakeParams, side: int
) -> None:
    """Steps in pixels belong to the size that they were given for; elsewhere centres are evenly spaced."""
    config = model_config(make_params(**VGG_STEPS).model, 2)
    priors = make_priors(config.map_sizes(side), config.levels_at(side))
    cells = config.map_sizes(side)[0][0]
    finest = priors[: cells**2 * 4, :2]
    assert priors[:, :2].amin() > 0
    assert priors[:, :2].amax() < 1
    torch.testing.assert_close(finest.amin(), torch.tensor(0.5 / cells))
    torch.testing.assert_close(finest.amax(), torch.tensor(1 - 0.5 / cells))
    torch.testing.assert_close(finest.mean(0), torch.tensor([0.5, 0.5]))


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

    config = paper_config(
        "vgg16", 64, 3, strides=(8, 16), neck="fpn", heads="conv1x1", width=32, input_scale="caffe"
    )
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
