"""From the `augment` section of params.yaml to what is done to images and batches."""

import logging

from ssd.loading.augment import Geometry, Photometry
from ssd.loading.object_crop import ObjectCrop
from ssd.params import AugmentParams

log = logging.getLogger(__name__)

# What a policy switches off, of the settings that are 0 until somebody sets them.
OPTIONAL = ("photometric", "mosaic", "mixup")


def geometry_of(params: AugmentParams) -> Geometry:
    """Views and mosaic of a policy: settings of other policies have no effect."""
    if params.policy == "none":
        return Geometry(flip=0.0, zoom_out=0.0, zoom_max=1.0, crop=0.0)
    if params.policy == "ssd":
        return Geometry(params.flip, params.zoom_out, params.zoom_max, params.crop, params.mosaic)
    object_crop = _object_crop_of(params) if params.policy == "object_crop" else None
    return Geometry(params.flip, 0.0, 1.0, 0.0, params.mosaic, object_crop)


def photometry_of(params: AugmentParams) -> Photometry:
    """Colours: those of the section, or none with policy none."""
    probability = 0.0 if params.policy == "none" else params.photometric
    return Photometry(probability, params.brightness, params.contrast, params.saturation, params.hue)


def mixup_of(params: AugmentParams) -> float:
    """The probability of mixup, 0 with policy none."""
    return 0.0 if params.policy == "none" else params.mixup


def warn_of_unused_augmentation(params: AugmentParams) -> None:
    """One warning for each setting that somebody made and that has no effect.

    Only where that is certain: a flip with policy none, or a zoom-out with policy light, may just be what the
    params file came with.
    """
    if params.policy == "none":
        for name in OPTIONAL:
            if getattr(params, name) > 0:
                log.warning("augment.%s: not used: augment.policy is none", name)
    if params.policy == "object_crop" and params.target_visible < params.others_visible:
        log.warning(
            "augment.target_visible: %g is not used: no object stays below augment.others_visible, %g",
            params.target_visible,
            params.others_visible,
        )


def _object_crop_of(params: AugmentParams) -> ObjectCrop:
    return ObjectCrop(
        probability=params.object_crop,
        resized=params.resized_crop,
        min_multiple=params.object_min,
        max_multiple=params.object_max,
        min_area=params.crop_area,
        max_ratio=params.crop_ratio,
        target_visible=params.target_visible,
        others_visible=params.others_visible,
        tries=params.crop_tries,
    )
