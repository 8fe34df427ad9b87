"""`python -m stages.check`: check that nothing is missing for the pipeline; no stage of dvc.yaml.

download and preprocess begin with the same check, so that a `dvc repro` stops before hours of them.
"""

import sys
from pathlib import Path

from ssd.params import Params
from ssd.preflight.check import find_missing
from ssd.preflight.space import Places, free_bytes, list_needs
from stages.command import command, resolve_weights, stop_if_fatal, workspace


def places() -> Places:
    """The folders of the pipeline, which runs in the current one."""
    return Places(workspace(), raw=Path("data/raw"), tensors=Path("data/tensors"))


def stop_if_incomplete(params: Params) -> None:
    """Print warnings about what is missing, and stop if the pipeline cannot do without.

    Raises:
        UserError: one line for each finding without which a later stage would fail.
    """
    weights = resolve_weights(params, workspace())
    stop_if_fatal(find_missing(params, weights, places()))


def summary(params: Params) -> str:
    """One line about what the pipeline will use: network, device, disk space."""
    from ssd.hardware import choose_hardware

    hardware = choose_hardware(params.train.device, params.train.precision)
    needed = sum(need.num_bytes for need in list_needs(params.data, params.preprocess, places()))
    return (
        f"nothing is missing: {params.data.source}; {params.model.backbone}, weights: "
        f"{params.model.weights}; {hardware.device.type} in {str(hardware.dtype).removeprefix('torch.')}; "
        f"{free_bytes(places().raw) / 1e9:.1f} GB free, about {needed / 1e9:.1f} GB needed"
    )


@command
def main(params: Params) -> None:
    stop_if_incomplete(params)
    print(summary(params))


if __name__ == "__main__":
    main(sys.argv[1:])
