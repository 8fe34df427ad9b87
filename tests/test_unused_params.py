"""Settings that have no effect are named; those that have one, or that came with the file, are not."""

import logging
from collections.abc import Callable

import pytest
from augmentation import augment_params

from ssd.params import Params
from ssd.unused_params import warn_of_unused_augmentation


@pytest.mark.parametrize("policy", ["none", "light", "ssd", "object_crop"])
def test_no_policy_warns_of_the_params_file_as_it_comes(
    policy: str, make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unused_augmentation(make_params(**{"augment.policy": policy}).augment)
    assert not caplog.records


def test_policy_none_warns_of_what_was_switched_on(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unused_augmentation(augment_params("none", photometric=0.5, mosaic=0.2, mixup=0.0))
    assert [record.getMessage() for record in caplog.records] == [
        "augment.photometric: not used: augment.policy is none",
        "augment.mosaic: not used: augment.policy is none",
    ]
    caplog.clear()
    warn_of_unused_augmentation(augment_params("light", photometric=0.5, mosaic=0.2))
    assert not caplog.records


def test_a_target_that_may_be_less_visible_than_others_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unused_augmentation(augment_params("object_crop", target_visible=0.2, others_visible=0.5))
    [record] = caplog.records
    assert "augment.target_visible: 0.2 is not used" in record.getMessage()
    caplog.clear()
    warn_of_unused_augmentation(augment_params("ssd", target_visible=0.2, others_visible=0.5))
    assert not caplog.records
