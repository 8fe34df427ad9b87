"""Settings that have no effect are named; those that have one, or that came with the file, are not."""

import logging
from collections.abc import Callable

import pytest
from default_params import augment_params

from ssd.hardware import choose_hardware
from ssd.params import Params
from ssd.unused_params import (
    warn_of_unused_augmentation,
    warn_of_unused_by_family,
    warn_of_unused_training,
)

CPU = choose_hardware("cpu", "fp32")


def test_settings_of_a_training_that_are_not_used_are_warned_of(
    make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    changes = {
        "train.schedule": "plateau",
        "train.warmup_steps": 1000,
        "train.batch_size": 4,
        "train.epochs": 1,
        "train.early_stop": 3,
        "train.keep_best": 2,
        "train.select_by": "map50_f1",
        "train.val_batch_size": 8,
        "train.sync_bn": True,
        "train.deterministic": True,
        "train.small_epochs": 1,
        "train.accumulate": 4,
    }
    warn_of_unused_training(make_params(**changes).train, 4, 0, CPU, 1)
    for line in (
        "plateau never lowers the learning rate",
        "train.lr is never reached",
        "training never stops early",
        "only the last weights are kept",
        "train.select_by: the last weights are kept: there is no val split with objects",
        "train.val_batch_size: not used: there is no val split with objects",
        "train.sync_bn: not used",
        "train.deterministic: not used",
        "no epoch is trained at model.input_size",
        "4 micro-batches would have fewer than the two images that batch norm needs; 2 are used",
    ):
        assert line in caplog.text


def test_losses_of_two_input_sizes_do_not_compare(
    make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"train.epochs": 1000, "train.select_by": "train_loss", "train.small_epochs": 2}
    warn_of_unused_training(make_params(**changes).train, 4, 1, CPU, 1)
    assert "train_loss compares epochs of different input sizes" in caplog.text


def test_the_training_loss_needs_no_val_split(
    make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    changes = {
        "train.epochs": 1000,
        "train.select_by": "train_loss",
        "train.schedule": "plateau",
        "train.early_stop": 3,
        "train.keep_best": 2,
    }
    warn_of_unused_training(make_params(**changes).train, 4, 0, CPU, 1)
    assert caplog.text == ""


def test_settings_of_another_loss_are_warned_of(
    make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    changes = {
        "train.epochs": 1000,
        "train.conf_loss": "focal",
        "train.negatives_by": "confidence",
        "train.box_loss": "l1",
        "train.smooth_l1_beta": 0.5,
    }
    warn_of_unused_training(make_params(**changes).train, 4, 16, CPU, 1)
    assert caplog.messages == [
        "train.negatives_by: not used by train.conf_loss: focal",
        "train.smooth_l1_beta: not used by train.box_loss: l1",
    ]


def test_the_default_settings_of_a_training_are_all_used(
    make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unused_training(make_params(**{"train.epochs": 1000}).train, 4, 16, CPU, 1)
    assert caplog.text == ""


@pytest.mark.parametrize("policy", ["none", "light", "ssd", "object_crop"])
def test_no_policy_warns_of_the_params_file_as_it_comes(
    policy: str, make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unused_augmentation(make_params(**{"augment.policy": policy}).augment)
    assert not caplog.records


def test_policy_none_warns_of_what_was_switched_on(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unused_augmentation(augment_params("none", photometric=0.5, channel_shuffle=0.1, mosaic=0.2))
    assert [record.getMessage() for record in caplog.records] == [
        "augment.photometric: not used: augment.policy is none",
        "augment.channel_shuffle: not used: augment.policy is none",
        "augment.mosaic: not used: augment.policy is none",
    ]
    caplog.clear()
    warn_of_unused_augmentation(augment_params("light", photometric=0.5, mosaic=0.2))
    assert not caplog.records


@pytest.mark.parametrize(
    ("policy", "probability", "used"),
    [("object_crop", 0.5, True), ("object_crop", 0.0, False), ("ssd", 0.5, False)],
)
def test_a_shape_of_crops_that_there_are_none_of_is_warned_of(
    policy: str, probability: float, used: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unused_augmentation(augment_params(policy, object_crop=probability, object_shape="box"))
    lines = [record.getMessage() for record in caplog.records]
    expected = "augment.object_shape: box is not used: there are no crops around objects"
    assert lines == ([] if used else [expected])


def test_a_target_that_may_be_less_visible_than_others_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unused_augmentation(augment_params("object_crop", target_visible=0.2, others_visible=0.5))
    [record] = caplog.records
    assert "augment.target_visible: 0.2 is not used" in record.getMessage()
    caplog.clear()
    warn_of_unused_augmentation(augment_params("ssd", target_visible=0.2, others_visible=0.5))
    assert not caplog.records


def test_settings_of_ssd_alone_are_warned_of_in_another_family(
    make_params: Callable[..., Params], caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"model.heads": "ssdlite", "model.scale_first": 0.07, "train.conf_loss": "focal"}
    for family, number in (("ssd", 0), ("faster_rcnn", 3)):
        params = make_params(**changes, **{"model.family": family})
        warn_of_unused_by_family(params.model, params.train)
        assert len(caplog.messages) == number
    assert all(f"{key}: not used by model.family: faster_rcnn" in caplog.text for key in changes)
    caplog.clear()
    params = make_params(**{"model.family": "faster_rcnn"})
    warn_of_unused_by_family(params.model, params.train)
    assert caplog.messages == []
