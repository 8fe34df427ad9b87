"""MLflow tracking: one run per experiment, over all stages.

The run is found by content, not by a file: train tags its run with the digest of the model file that it
wrote, and the later stages search for the run with the digest of the model that they read. This also works
for a stage that DVC restores from its cache, for a clone, and for a second experiment on the same model.

A failure of MLflow never stops a stage, nor holds it up for long: it is one warning, and the same numbers
are on disk.
"""

import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from ssd.files import sha256
from ssd.params import TrackingParams
from ssd.tracking.client import WRITER_TAG, mlflow, open_store, reason, server_of
from ssd.tracking.writers import Writer

log = logging.getLogger(__name__)

MODEL_TAG = "model_sha256"
EXPERIMENT_TAG = "dvc_experiment"
ONNX_TAG = "onnx_sha256"
STAGE_TAG = "stage."


P = ParamSpec("P")


def _warn_on_failure(method: Callable[Concatenate["Run", P], None]) -> Callable[Concatenate["Run", P], None]:
    """Decorator of a method of Run: no effect while inactive; on failure, warn and deactivate the run."""

    @wraps(method)
    def guarded(self: "Run", /, *args: P.args, **kwargs: P.kwargs) -> None:
        if not self.active:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 (whatever a database, a disk or a server raises)
            self.active = False
            _warn(f"logging {method.__name__}", error, self.uri)

    return guarded


class Run:
    """The MLflow run that a stage logs to. Without tracking, or after a failure, every method does nothing.

    Attributes:
        active: whether tracking is enabled and has not failed.
        uri: of the server; empty for the store in the workspace.
        id: MLflow's run id; empty without tracking.
        resumed: whether an earlier process started this run, which still has what that process logged.
        writer: shows other processes that this one still writes the run; None where the store did not open.
    """

    def __init__(self, active: bool, uri: str = "") -> None:
        self.active = active
        self.uri = uri
        self.id = ""
        self.resumed = False
        self.writer: Writer | None = None

    @_warn_on_failure
    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters, flat, as `section.key`. A list is logged as text."""
        mlflow().log_params({key: str(value) for key, value in values.items()})

    @_warn_on_failure
    def metrics(self, values: Mapping[str, float | None], step: int | None = None) -> None:
        """Log metrics; those that are None are left out."""
        present = {key: value for key, value in values.items() if value is not None}
        mlflow().log_metrics(present, step=step)
        if self.writer:
            self.writer.alive()

    @_warn_on_failure
    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        mlflow().set_tags(dict(values))

    @_warn_on_failure
    def file(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file, or every file of a folder, as artifacts."""
        log_path = mlflow().log_artifacts if Path(path).is_dir() else mlflow().log_artifact
        log_path(str(path), folder)

    @_warn_on_failure
    def table(self, columns: Mapping[str, Sequence[object]], path: str) -> None:
        """Log a table, shown in the UI; `path` ends with .json. It replaces an earlier one."""
        # What mlflow.log_table writes; but that appends to the rows of an earlier evaluation.
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        mlflow().log_dict({"columns": list(columns), "data": rows}, path)
        mlflow().set_tag("mlflow.loggedArtifacts", json.dumps([{"path": path, "type": "table"}]))

    @_warn_on_failure
    def onnx_model(
        self, onnx_file: str | Path, code: str | Path, requirements: Sequence[str], example: str
    ) -> None:
        """Log a pyfunc model around an ONNX file, with signature: base64 images in, detections out.

        A run has one model per ONNX file, also where an export was killed and repeated.

        Args:
            onnx_file: the exported detector.
            code: the Python file of the model; stored as source code, nothing is pickled.
            requirements: pinned pip requirements of `code`.
            example: base64 of an image, shown with the model.
        """
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema
        from mlflow.types.schema import Array, Object, Property

        numbers = [Property(name, DataType.double) for name in ("x1", "y1", "x2", "y2", "score")]
        box = Object([*numbers, Property("label", DataType.string)])
        signature = ModelSignature(
            Schema([ColSpec(DataType.string, "image")]), Schema([ColSpec(Array(box), "detections")])
        )
        digest = sha256(onnx_file)
        if self._has_model(digest):
            return
        mlflow().pyfunc.log_model(
            name="detector",
            tags={ONNX_TAG: digest},
            python_model=str(code),
            artifacts={"onnx": str(onnx_file)},
            signature=signature,
            input_example={"image": [example]},
            pip_requirements=list(requirements),
        )

    def _has_model(self, digest: str) -> bool:
        """Whether the run has the model of this ONNX file; those of exports that were killed are deleted."""
        run = mlflow().active_run()
        assert run is not None, "self.active, which the caller has checked"
        mine = f"source_run_id = '{run.info.run_id}' AND tags.{ONNX_TAG} = '{digest}'"
        client = mlflow().MlflowClient()
        found = client.search_logged_models([run.info.experiment_id], mine)
        unfinished = [model for model in found if model.status != "READY"]
        for model in unfinished:
            client.delete_logged_model(model.model_id)
        return len(found) > len(unfinished)


@contextmanager
def tracked_run(
    settings: TrackingParams,
    root: Path,
    stage: str,
    *,
    name: str,
    stage_params: Mapping[str, object],
    model_digest: str | None = None,
    resume: str | None = None,
) -> Iterator[Run]:
    """Yield the run that a stage logs to; it is closed as FINISHED, FAILED, or KILLED (Ctrl-C, SIGTERM).

    Args:
        settings: the `tracking` section.
        root: the main workspace, which contains the MLflow store.
        stage: name of the stage.
        name: name of a new run if `settings.run_name` is empty; it should say what differs.
        stage_params: the parameters that the stage depends on. If the run of the model has logged the same
            stage with other values, a child run is created.
        model_digest: SHA-256 of the model file that the stage reads; None starts a new run.
        resume: id of a run to resume, if the store has it and it belongs to the same DVC experiment.
    """
    if not settings.enabled:
        yield Run(active=False)
        return
    run = Run(active=True, uri=server_of(settings))
    try:
        try:
            experiment_id, run.writer = open_store(settings, root)
            own = {WRITER_TAG: run.writer.name}
            run.resumed = resume is not None and _resume(resume, experiment_id, settings.system_metrics, own)
            if not run.resumed:
                _open_run(experiment_id, settings, stage, name, stage_params, model_digest, own)
            active = mlflow().active_run()
            assert active is not None, "_resume or _open_run has started it"
            run.id = active.info.run_id
        except Exception as error:  # noqa: BLE001 (whatever a database, a disk or a server raises)
            run.active = False
            _warn("opening the run", error, run.uri)
        yield run
    except KeyboardInterrupt:
        _close_run(run, "KILLED")
        raise
    except BaseException:
        _close_run(run, "FAILED")
        raise
    _close_run(run, "FINISHED")


def _resume(run_id: str, experiment_id: str, system_metrics: bool, tags: Mapping[str, str]) -> bool:
    """Resume an earlier run; False if it does not exist or belongs to another DVC experiment."""
    found = mlflow().MlflowClient().search_runs([experiment_id], f"attributes.run_id = '{run_id}'")
    own_name = os.environ.get("DVC_EXP_NAME", "")
    if not found or found[0].data.tags.get(EXPERIMENT_TAG) != own_name:
        return False
    _start_again(run_id, tags, system_metrics)
    return True


def _start_again(run_id: str, tags: Mapping[str, str], system_metrics: bool) -> None:
    for key, value in tags.items():
        mlflow().MlflowClient().set_tag(run_id, key, value)
    # Only now is it RUNNING: whoever is killed in between leaves no open run without its name.
    mlflow().start_run(run_id=run_id, log_system_metrics=system_metrics)


def _open_run(
    experiment_id: str,
    settings: TrackingParams,
    stage: str,
    name: str,
    stage_params: Mapping[str, object],
    model_digest: str | None,
    own: Mapping[str, str],
) -> None:
    """Start a new run, or resume the run of the model that the stage reads; tag it with `own`.

    An engine, as Kubeflow Pipelines, may name a run of its own in MLFLOW_RUN_ID: the parent of a new one.
    """
    parent = os.environ.pop("MLFLOW_RUN_ID", "")  # or mlflow.start_run would resume that run
    mark = {STAGE_TAG + stage: repr(sorted(stage_params.items()))}
    system_metrics = settings.system_metrics and stage == "train"
    found = _find(experiment_id, model_digest) if model_digest else None
    if found is None:
        own_name = os.environ.get("DVC_EXP_NAME", "")
        tags = {EXPERIMENT_TAG: own_name, "mlflow.source.name": "dvc.yaml", **_git_state(), **mark, **own}
        if model_digest:
            tags[MODEL_TAG] = model_digest
        if parent:
            tags["mlflow.parentRunId"] = parent
        run_name = settings.run_name or " ".join(filter(None, [own_name, name]))
        mlflow().start_run(
            experiment_id=experiment_id, run_name=run_name, tags=tags, log_system_metrics=system_metrics
        )
        _log_stage_params(stage_params)
        return
    before = found.data.tags.get(STAGE_TAG + stage)
    _start_again(found.info.run_id, own, system_metrics=False)
    if before is None or before in mark.values():
        mlflow().set_tags(mark)
        return
    child_name = f"{stage} {_difference(before, stage_params)}"
    mlflow().start_run(
        experiment_id=experiment_id, run_name=child_name, nested=True, tags={**mark, **_git_state(), **own}
    )
    _log_stage_params(stage_params)


def _log_stage_params(stage_params: Mapping[str, object]) -> None:
    mlflow().log_params({key: str(value) for key, value in stage_params.items()})


def _find(experiment_id: str, model_digest: str) -> Any:
    """The newest run of this model, preferably one of this process's DVC experiment."""
    found = (
        mlflow()
        .MlflowClient()
        .search_runs(
            [experiment_id], f"tags.{MODEL_TAG} = '{model_digest}'", order_by=["attributes.start_time DESC"]
        )
    )
    own = [run for run in found if run.data.tags.get(EXPERIMENT_TAG) == os.environ.get("DVC_EXP_NAME", "")]
    return next(iter([*own, *found]), None)


def _difference(before: str, after: Mapping[str, object]) -> str:
    """The changed parameters of a stage, for the name of a child run."""
    new = [f"{key}={value}" for key, value in sorted(after.items()) if repr((key, value)) not in before]
    return " ".join(new) or "again"


def _git_state() -> dict[str, str]:
    """Commit and dirty flag; empty where there is no git."""

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=30)
        return result.stdout.strip()

    try:
        dirty = bool(git("status", "--porcelain", "--untracked-files=no"))
        return {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git_dirty": str(dirty).lower()}
    except (OSError, subprocess.SubprocessError):
        return {}


def _close_run(run: Run, status: str) -> None:
    """Where it fails, a later stage finds that the writer has ended, and closes the run."""
    try:
        while mlflow().active_run() is not None:
            mlflow().end_run(status)
        if run.writer:
            run.writer.gone()
    except Exception as error:  # noqa: BLE001 (whatever a database, a disk or a server raises)
        if run.active:
            _warn("closing the run", error, run.uri)


def _warn(doing: str, error: Exception, uri: str) -> None:
    log.warning(
        "MLflow failed while %s (%s); this stage logs nothing more there, its numbers are in reports/",
        doing,
        reason(error, uri),
    )


def flat_params(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """{"train": {"lr": 0.1}} to {"train.lr": 0.1}: how parameters are named in MLflow."""
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
