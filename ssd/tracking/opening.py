"""Which MLflow run a stage logs to: a new one, that of the model which it reads, or a child of that.

The run is found by content, not by a file: train tags its run with the digest of the model file that it
wrote, and the later stages search for the run with the digest of the model that they read. This also works
for a stage that DVC restores from its cache, for a clone, and for a second experiment on the same model.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssd.params import TrackingParams
from ssd.tracking.client import mlflow
from ssd.tracking.run_name import child_name

MODEL_TAG = "model_sha256"
EXPERIMENT_TAG = "dvc_experiment"
STAGE_TAG = "mlflow.ssd.stage."
"""With the params of a stage, by which it knows later whether they differ. MLflow's pages do not show it."""
OLD_STAGE_TAG = "stage."
INPUTS = ("dvc.yaml", "params.yaml", "cli", "ssd", "stages")
"""What decides the results, as in stages/revision.py. dvc.lock is none: each stage that runs changes it."""


@dataclass(frozen=True)
class Stage:
    """A stage that wants a run.

    name: of the stage; run_name: of a new run where `tracking.run_name` is empty; params: those that the
    stage depends on; model_digest: SHA-256 of the model file that it reads, None for the stage that makes
    one; resume: id of the run of an earlier process; parent: id of an engine's run that a new one belongs to.
    """

    name: str
    run_name: str
    params: Mapping[str, object]
    model_digest: str | None
    resume: str | None
    parent: str


def open_run(
    experiment_id: str, settings: TrackingParams, stage: Stage, own: Mapping[str, str]
) -> tuple[bool, bool]:
    """Start or resume the run that a stage logs to, and tag it with `own`.

    Returns:
        whether it is that of `stage.resume`, and whether it is new, so that it has no params yet.
    """
    if stage.resume is not None and _resume(stage.resume, experiment_id, settings.system_metrics, own):
        return True, False
    return False, _start(experiment_id, settings, stage, own)


def _resume(run_id: str, experiment_id: str, system_metrics: bool, tags: Mapping[str, str]) -> bool:
    """Resume an earlier run; False if it does not exist or belongs to another DVC experiment."""
    found = mlflow().MlflowClient().search_runs([experiment_id], f"attributes.run_id = '{run_id}'")
    if not found or not _is_of_this_experiment(found[0]):
        return False
    _start_again(run_id, tags, system_metrics)
    return True


def _start_again(run_id: str, tags: Mapping[str, str], system_metrics: bool) -> None:
    for key, value in tags.items():
        mlflow().MlflowClient().set_tag(run_id, key, value)
    # Only now is it RUNNING: whoever is killed in between leaves no open run without its name.
    mlflow().start_run(run_id=run_id, log_system_metrics=system_metrics)


def _start(experiment_id: str, settings: TrackingParams, stage: Stage, own: Mapping[str, str]) -> bool:
    """Start a new run, or resume the run of the model that the stage reads; whether it is new."""
    mark = {STAGE_TAG + stage.name: repr(sorted(stage.params.items()))}
    system_metrics = settings.system_metrics and stage.name == "train"
    found = run_of_model(experiment_id, stage.model_digest) if stage.model_digest else None
    if found is None:
        tags = {"mlflow.source.name": "dvc.yaml", **git_state(), **mark, **own}
        if name := os.environ.get("DVC_EXP_NAME"):
            tags[EXPERIMENT_TAG] = name
        if stage.model_digest:
            tags[MODEL_TAG] = stage.model_digest
        if stage.parent:
            tags["mlflow.parentRunId"] = stage.parent
        mlflow().start_run(
            experiment_id=experiment_id,
            run_name=settings.run_name or stage.run_name,
            tags=tags,
            log_system_metrics=system_metrics,
        )
        return True
    known = found.data.tags
    before = known.get(STAGE_TAG + stage.name, known.get(OLD_STAGE_TAG + stage.name))
    _start_again(found.info.run_id, own, system_metrics=False)
    if before is None or before in mark.values():
        mlflow().set_tags(mark)
        return False
    mlflow().start_run(
        experiment_id=experiment_id,
        run_name=child_name(stage.name, before, stage.params),
        nested=True,
        tags={**mark, **git_state(), **own},
    )
    return True


def run_of_model(experiment_id: str, model_digest: str) -> Any:
    """The newest run of this model, preferably one of this process's DVC experiment; None without one."""
    found = (
        mlflow()
        .MlflowClient()
        .search_runs(
            [experiment_id], f"tags.{MODEL_TAG} = '{model_digest}'", order_by=["attributes.start_time DESC"]
        )
    )
    own = [run for run in found if _is_of_this_experiment(run)]
    return next(iter([*own, *found]), None)


def _is_of_this_experiment(run: Any) -> bool:
    """Whether a run is of the DVC experiment that this process is, or of none as this process."""
    return bool(run.data.tags.get(EXPERIMENT_TAG, "") == os.environ.get("DVC_EXP_NAME", ""))


def git_state() -> dict[str, str]:
    """Commit, and whether INPUTS differ from it, new files included; empty where there is no git."""

    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], capture_output=True, check=True, timeout=30).stdout

    try:
        dirty = bool(git("status", "--porcelain", "--", *INPUTS))
        commit = git("rev-parse", "HEAD").decode().strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, "git_dirty": str(dirty).lower()}
