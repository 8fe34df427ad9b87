"""Warnings about parameters that have no effect together with the others."""

import logging

from ssd.hardware import Hardware
from ssd.params import AugmentParams, ModelParams, TrainParams

log = logging.getLogger(__name__)


def warn_of_unused_training(
    params: TrainParams, num_batches: int, num_val_images: int, hardware: Hardware, num_processes: int
) -> None:
    """Log one line per parameter of the `train` section that is switched on and has no effect.

    Args:
        params: the `train` section.
        num_batches: per epoch.
        num_val_images: that have an object to score; 0 if there is no validation.
        hardware, num_processes: of the training.
    """
    num_steps, on_cpu = params.epochs * num_batches, hardware.device.type == "cpu"
    if num_val_images == 0:
        _warn_without_val(params)
    if params.warmup_steps >= num_steps:
        line = "train.warmup_steps: %d steps of warm-up, but training has %d: train.lr is never reached"
        log.warning(line, params.warmup_steps, num_steps)
    if params.sync_bn and (on_cpu or num_processes == 1):
        log.warning("train.sync_bn: not used: it needs several GPUs")
    if params.deterministic and on_cpu:
        log.warning("train.deterministic: not used: training on a CPU is deterministic anyway")
    if params.small_epochs > 0 and params.small_scale == 1:
        log.warning("train.small_epochs: not used: train.small_scale is 1")
    if params.small_epochs >= params.epochs and params.small_scale < 1:
        log.warning("train.small_epochs: no epoch is trained at model.input_size")
    if params.select_by == "train_loss" and params.small_epochs > 0 and params.small_scale < 1:
        log.warning(
            "train.select_by: train_loss compares epochs of different input sizes (train.small_epochs), "
            "whose losses are of different priors and objects"
        )
    _warn_of_unused_loss(params)
    num_images = -(-params.batch_size // num_processes)
    most = max(num_images // 2, 1)
    if params.accumulate > most:
        log.warning(
            "train.accumulate: %d micro-batches would have fewer than the two images that batch norm needs; "
            "%d are used",
            params.accumulate,
            most,
        )


def _warn_without_val(params: TrainParams) -> None:
    unscored = params.select_by != "train_loss"
    for used, line in (
        (unscored and params.schedule == "plateau", "schedule: plateau never lowers the learning rate"),
        (unscored and params.early_stop > 0, "early_stop: training never stops early"),
        (unscored and params.keep_best > 1, "keep_best: only the last weights are kept"),
        (unscored and params.select_by != "map50", "select_by: the last weights are kept"),
        (params.val_batch_size > 0, "val_batch_size: not used"),
    ):
        if used:
            log.warning("train.%s: there is no val split with objects", line)


def _warn_of_unused_loss(params: TrainParams) -> None:
    if params.conf_loss == "focal" and params.label_smoothing > 0:
        log.warning("train.label_smoothing: not used by train.conf_loss: focal")
    if params.conf_loss == "focal" and params.negatives_by != "loss":
        log.warning("train.negatives_by: not used by train.conf_loss: focal")
    if params.box_loss != "smooth_l1" and params.smooth_l1_beta != 1:
        log.warning("train.smooth_l1_beta: not used by train.box_loss: %s", params.box_loss)


# Of SSD alone, with the values that mean nothing special.
SSD_MODEL = {
    "strides": [],
    "neck": "none",
    "heads": "conv3x3",
    "scale_first": 0.1,
    "scale_second": 0.2,
    "scale_last": 1.05,
    "prior_scales": [],
    "prior_ratios": [],
    "prior_steps": [],
}
SSD_TRAIN = {
    "match_iou": 0.5,
    "conf_loss": "cross_entropy",
    "negatives": 3.0,
    "negatives_by": "loss",
    "min_negatives": 8,
    "box_loss": "smooth_l1",
    "smooth_l1_beta": 1.0,
}


def warn_of_unused_by_family(model: ModelParams, train: TrainParams) -> None:
    """Log one line per parameter that was set by the user and that `model.family` does not use."""
    if model.family == "ssd":
        return
    for name, section, usual in (("model", model, SSD_MODEL), ("train", train, SSD_TRAIN)):
        for key, value in usual.items():
            if getattr(section, key) != value:
                log.warning("%s.%s: not used by model.family: %s", name, key, model.family)


# Parameters that are 0 by default and that policy none disables.
OPTIONAL_AUGMENTATION = ("photometric", "channel_shuffle", "mosaic", "mixup")


def warn_of_unused_augmentation(augment: AugmentParams) -> None:
    """Log one line per parameter of the `augment` section that was set by the user and has no effect.

    Only where that is certain: a flip with policy none, or a zoom-out with policy light, may just be the
    default of the params file.
    """
    if augment.policy == "none":
        for name in OPTIONAL_AUGMENTATION:
            if getattr(augment, name) > 0:
                log.warning("augment.%s: not used: augment.policy is none", name)
    if augment.object_shape == "box" and (augment.policy != "object_crop" or augment.object_crop == 0):
        log.warning("augment.object_shape: box is not used: there are no crops around objects")
    if augment.policy == "object_crop" and augment.target_visible < augment.others_visible:
        log.warning(
            "augment.target_visible: %g is not used: no object stays below augment.others_visible, %g",
            augment.target_visible,
            augment.others_visible,
        )
