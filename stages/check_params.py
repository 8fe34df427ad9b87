"""Stage 0: check params.yaml, in a second, before DVC touches what the other stages have written.

DVC removes what a changed stage wrote, then runs it. All stages depend on this one, so a mistake in params
costs nothing. Where training would differ from that of dvc.lock, its network and devices are checked, too.
Whether all models that are fused will be there is checked always.
This stage always writes the same: a change of params runs no more stages again than those that read them.
"""

import os
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ssd.files import write_bytes
from ssd.params import Params
from ssd.preflight.devices import check_devices
from ssd.preflight.ensemble import check_ensemble, check_further_models
from ssd.preflight.finding import Finding
from ssd.preflight.network import check_network
from stages.command import command, resolve_weights, stop_if_fatal, workspace
from stages.dvc_lock import mend_dvc_lock

LOCK = Path("dvc.lock")
REPORT = Path("reports/check_params.txt")


@command
def main(params: Params) -> None:
    stop_if_fatal(find_obstacles(params, last_training()))
    if not os.environ.get("DVC_STAGE") and mend_dvc_lock():
        print("deleted .dvc/tmp/rwlock: DVC was killed while it wrote it, and would not run", file=sys.stderr)
    write_bytes(REPORT, b"params.yaml is valid\n")


def find_obstacles(params: Params, before: dict[str, Any]) -> list[Finding]:
    """What would stop a training with other settings than the last one, or the stages after it.

    Weights and GPUs are not looked for where its settings are the same: those of a training that has ended
    may be gone.

    Args:
        params: all sections.
        before: the sections of the last training, {} if there was none: then there is nothing to lose.
    """
    findings = check_ensemble(params.train, params.evaluate)
    findings += check_further_models(params.data, params.evaluate, workspace())
    if before and before.get("model") != params.model.model_dump():
        findings += check_network(params.model, resolve_weights(params, workspace()))
    if before and before.get("train") != params.train.model_dump():
        findings += check_devices(params.train, params.evaluate)
    return findings


def last_training() -> dict[str, Any]:
    """The params of the training that dvc.lock describes, by section; {} if there is none."""
    if not LOCK.is_file():
        return {}
    stages = YAML(typ="safe", pure=True).load(LOCK)["stages"]
    found: dict[str, Any] = stages.get("train", {}).get("params", {}).get("params.yaml", {})
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
