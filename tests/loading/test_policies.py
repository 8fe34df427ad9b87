"""What the policies of params.yaml switch on, and what they warn of."""

import logging
from collections.abc import Callable

import pytest
import torch

from ssd.loading.augment import Geometry, sample_view
from ssd.loading.policies import geometry_of, mixup_of, photometry_of, warn_of_unused_augmentation
from ssd.loading.view import whole
from ssd.params import AugmentParams, Params

EVERYTHING: dict[str, object] = {
    "augment.flip": 0.4,
    "augment.zoom_out": 0.3,
    "augment.zoom_max": 3.0,
    "augment.crop": 0.9,
    "augment.photometric": 0.5,
    "augment.mosaic": 0.2,
    "augment.mixup": 0.1,
}
POLICIES = ["none", "light", "ssd", "object_crop"]


@pytest.fixture
def augment(make_params: Callable[..., Params]) -> Callable[..., AugmentParams]:
    """The section with a policy and changes: augment("ssd", mosaic=0.5)."""

    def make(policy: str, **changes: object) -> AugmentParams:
        named = {f"augment.{name}": value for name, value in changes.items()}
        return make_params(**{**EVERYTHING, **named, "augment.policy": policy}).augment

    return make


def test_policy_none_does_nothing_at_all(augment: Callable[..., AugmentParams]) -> None:
    params = augment("none", flip=1.0)
    boxes = torch.tensor([[10.0, 10.0, 40.0, 40.0]])
    for seed in range(50):
        source = torch.Generator().manual_seed(seed)
        assert sample_view(60, 90, boxes, geometry_of(params), source) == whole(60, 90)
    assert geometry_of(params).mosaic == photometry_of(params).probability == mixup_of(params) == 0


def test_policy_light_has_no_crop_and_no_zoom(augment: Callable[..., AugmentParams]) -> None:
    geometry = geometry_of(augment("light"))
    assert (geometry.flip, geometry.mosaic) == (0.4, 0.2)
    assert geometry.zoom_out == geometry.crop == 0 and geometry.object_crop is None


def test_policy_ssd_adds_zoom_out_and_iou_crop(augment: Callable[..., AugmentParams]) -> None:
    assert geometry_of(augment("ssd")) == Geometry(0.4, 0.3, 3.0, 0.9, 0.2)


def test_policy_object_crop_adds_its_crops_instead(augment: Callable[..., AugmentParams]) -> None:
    params = augment("object_crop", object_crop=0.6, object_min=2.0, crop_tries=7)
    geometry = geometry_of(params)
    assert (geometry.flip, geometry.mosaic) == (0.4, 0.2)
    assert geometry.zoom_out == geometry.crop == 0
    crop = geometry.object_crop
    assert crop is not None
    assert (crop.probability, crop.resized, crop.tries) == (0.6, params.resized_crop, 7)
    assert (crop.min_multiple, crop.max_multiple) == (2.0, params.object_max)
    assert (crop.min_area, crop.max_ratio) == (params.crop_area, params.crop_ratio)
    assert (crop.target_visible, crop.others_visible) == (params.target_visible, params.others_visible)


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_colours_and_mixup_are_those_of_the_section(
    policy: str, augment: Callable[..., AugmentParams]
) -> None:
    params = augment(policy)
    photometry = photometry_of(params)
    assert (photometry.probability, photometry.contrast) == (0.5, params.contrast)
    assert (photometry.brightness, photometry.saturation) == (params.brightness, params.saturation)
    assert (photometry.hue, mixup_of(params)) == (params.hue, 0.1)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_policy_warns_of_the_params_file_as_it_comes(
    policy: str, make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unused_augmentation(make_params(**{"augment.policy": policy}).augment)
    assert not caplog.records


def test_policy_none_warns_of_what_was_switched_on(
    augment: Callable[..., AugmentParams], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unused_augmentation(augment("none", mixup=0.0))
    assert [record.getMessage() for record in caplog.records] == [
        "augment.photometric: not used: augment.policy is none",
        "augment.mosaic: not used: augment.policy is none",
    ]
    caplog.clear()
    warn_of_unused_augmentation(augment("light"))
    assert not caplog.records


def test_a_target_that_may_be_less_visible_than_others_is_warned_of(
    augment: Callable[..., AugmentParams], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unused_augmentation(augment("object_crop", target_visible=0.2, others_visible=0.5))
    [record] = caplog.records
    assert "augment.target_visible: 0.2 is not used" in record.getMessage()
    caplog.clear()
    warn_of_unused_augmentation(augment("ssd", target_visible=0.2, others_visible=0.5))
    assert not caplog.records
