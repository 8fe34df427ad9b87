"""`python -m stages.folds`: mean and deviation over the folds of a cross-validation; no stage of dvc.yaml.

Reads the experiments that DVC holds of the present commit, prints a summary of each set that differs in
nothing but data.fold, and writes reports/folds.json. The workspace and the commit themselves are left out:
their figures may be older than their params. Where all folds of the newest set have finished, their models
are copied to models/folds, and the command is printed that measures them together, fused.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, cast

from ssd.cross_validation import Experiment, State, as_json, as_text, cross_validations, different_params
from ssd.errors import UserError
from ssd.files import write_json
from ssd.params import Params
from stages.command import command
from stages.dvc_files import read_output
from stages.fold_models import how_to_fuse

REPORT = "reports/folds.json"
METRICS = "reports/metrics.json"
RUNNING = ".dvc/tmp/exps"
"""Where DVC has the folders of running experiments, and a file on each."""
NUM_TRIES = 20
PAUSE = 0.5

log = logging.getLogger("ssd.folds")


@command
def main(params: Params) -> None:
    found = cross_validations(read_experiments(show_experiments()))
    if not found:
        raise UserError(
            "no experiments with data.folds above 1 on this commit; run them: dvc exp run --queue "
            "-S data.folds=5 -S 'data.fold=0,1,2,3,4' && dvc queue start && python -m stages.folds"
        )
    write_json(REPORT, {"cross_validations": [as_json(item) for item in found]})
    for item, differs in zip(found, different_params(found), strict=True):
        title = f"cross-validation in {item.num_folds} parts"
        print(f"{title}{', ' if differs else ''}{differs}\n{as_text(item)}\n")
    print(f"written to {REPORT}")
    if not found[-1].missing:
        try:
            print(how_to_fuse(found[-1], params))
        except UserError as error:  # the summary stands
            print(f"not fused: {error}")


def show_experiments() -> list[dict[str, Any]]:
    """What `dvc exp show` says of the present commit and its experiments, whatever state they are in.

    DVC 3 opens the folder of each running experiment without a lock, and fails where the queue has just
    not made it yet or removed it already. So it is asked again for as long as that may last.

    Raises:
        UserError: DVC does not answer: it is not installed, or this is no repository.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", "--hide-workspace"]
    for remaining in reversed(range(NUM_TRIES)):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            shown: list[dict[str, Any]] = json.loads(result.stdout)
            return shown
        lines = [line for line in result.stderr.splitlines() if line.strip()] or ["no reason"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        if RUNNING not in reason:
            raise UserError(f"`dvc exp show` failed: {reason}; run from the repository's root")
        if remaining:
            log.warning("an experiment starts or ends just now; DVC is asked again")
            time.sleep(PAUSE)
    raise UserError(
        f"`dvc exp show` failed {NUM_TRIES} times: {reason}; wait until no experiment starts or ends"
    )


def read_experiments(shown: list[dict[str, Any]]) -> list[Experiment]:
    """The experiments in DVC's answer; those that DVC cannot read are left out with a warning."""
    experiments = []
    for commit in shown:
        for entry in commit["experiments"] or []:
            tip = entry["revs"][0]
            params = _content(tip["data"], "params", "params.yaml")
            if params is None:
                log.warning("experiment %s is left out: DVC cannot read its params", _name(entry))
                continue
            metrics = _content(tip["data"], "metrics", METRICS)
            state = _state(entry["executor"], metrics)
            if state == "finished" and params.get("data", {}).get("folds"):
                metrics = all_metrics(tip["rev"]) or metrics
            experiments.append(
                Experiment(
                    name=_name(entry),
                    revision=tip["rev"],
                    created=tip["data"]["timestamp"] or "",
                    state=state,
                    params=params,
                    # Of an unfinished one DVC shows the figures of the commit that it started from.
                    metrics=metrics if metrics is not None and state == "finished" else {},
                )
            )
    return experiments


def all_metrics(revision: str) -> dict[str, Any] | None:
    """The content of reports/metrics.json, of which DVC shows no lists, as the figures of each class."""
    try:
        metrics: dict[str, Any] = json.loads(read_output(revision, METRICS))
    except UserError as error:  # DVC remembers figures of files that it does not keep any more
        log.warning("figures of classes are missing: %s", error)
        return None
    return metrics


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"] or entry["revs"][0]["rev"][:7])


def _content(data: Mapping[str, Any] | None, kind: str, file: str) -> dict[str, Any] | None:
    """The content of a params or metrics file; None where DVC has none or could not read it."""
    content = (data or {}).get(kind, {}).get(file, {}).get("data")
    return content if isinstance(content, dict) else None


def _state(executor: Mapping[str, Any] | None, metrics: object) -> State:
    """`executor` is None for experiments that finished outside the queue."""
    state = executor["state"] if executor else "success"
    if state == "success":
        return "finished" if metrics else "without figures"
    assert state in ("queued", "running", "failed"), state
    return cast(State, state)


if __name__ == "__main__":
    main(sys.argv[1:])
