"""The `augment` section for tests."""

from pathlib import Path

from ssd.params import AugmentParams, load_params

DEFAULTS = load_params(Path(__file__).parents[2] / "params.yaml").augment
OFF = dict.fromkeys(
    ("flip", "zoom_out", "crop", "object_crop", "resized_crop", "photometric", "mosaic", "mixup"), 0.0
)
"""Every probability."""


def augment_params(policy: str = "ssd", **changes: object) -> AugmentParams:
    """A policy with these settings; no other probability is above 0."""
    return AugmentParams.model_validate(DEFAULTS.model_dump() | OFF | {"policy": policy} | changes)
