"""MLflow tracking: one run per experiment, over all stages."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from ssd.files import sha256
from ssd.params import TrackingParams
from ssd.tracking.client import WRITER_TAG, brief_requests, mlflow, open_store, reason, server_of
from ssd.tracking.datasets import Split, dataset_input
from ssd.tracking.description import description
from ssd.tracking.opening import EXPERIMENT_TAG, Stage, open_run, run_of_model
from ssd.tracking.outbox import Entry, Outbox
from ssd.tracking.overview import NOTE_TAG, is_ours
from ssd.tracking.registered import ONNX_TAG, logged_name, register, registered_name, update_versions
from ssd.tracking.writers import Writer

log = logging.getLogger(__name__)

P = ParamSpec("P")


def _sent_in_order(method: Callable[Concatenate["Run", P], None]) -> Callable[Concatenate["Run", P], None]:
    """Decorator of a method of Run: what it logs goes through the run's outbox."""

    @wraps(method)
    def put(self: "Run", /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.outbox:
            self.outbox.add(method.__name__.strip("_"), partial(method, self, *args, **kwargs))

    return put


class Run:
    """The MLflow run that a stage logs to. Without tracking, every method does nothing.

    Attributes:
        outbox: keeps what could not be sent; None without tracking.
        id: MLflow's run id; empty without tracking, and until MLflow has opened the run.
        resumed: whether an earlier process started this run, which still has what that process logged.
        writer: shows other processes that this one still writes the run; None where the store did not open.
        registered: name of the registered model, of which each exported file is a version.
        model_digest: SHA-256 of the model file that the stage reads; None for the stage that makes one.
    """

    def __init__(self, registered: str = "", model_digest: str | None = None) -> None:
        self.outbox: Outbox | None = None
        self.id = ""
        self.resumed = False
        self.writer: Writer | None = None
        self.registered = registered
        self.model_digest = model_digest

    @_sent_in_order
    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters, flat, as `section.key`. A list is logged as text."""
        mlflow().log_params({key: str(value) for key, value in values.items()})

    def metrics(self, values: Mapping[str, float | None], step: int | None = None) -> None:
        """Log metrics; those that are None are left out."""
        present = {key: value for key, value in values.items() if value is not None}
        self._metrics(present, step, round(time.time() * 1000))

    @_sent_in_order
    def _metrics(self, values: Mapping[str, float], step: int | None, timestamp: int) -> None:
        mlflow().log_metrics(values, step=step, timestamp=timestamp)
        if self.writer:
            self.writer.alive()

    @_sent_in_order
    def missing_metrics(self, key: str, rows: Mapping[int, Mapping[str, float | None]]) -> None:
        """Log the metrics of the steps of which the run has no value of `key`, except those that are None."""
        known = {metric.step for metric in mlflow().MlflowClient().get_metric_history(self.id, key)}
        for step in sorted(rows.keys() - known):
            present = {name: value for name, value in rows[step].items() if value is not None}
            mlflow().log_metrics(present, step=step)

    @_sent_in_order
    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        mlflow().set_tags(dict(values))

    @_sent_in_order
    def tag_below(self, experiment: str, values: Mapping[str, str]) -> None:
        """Set tags of the runs below this one that belong to an experiment of DVC."""
        client = mlflow().MlflowClient()
        mine = f"tags.`mlflow.parentRunId` = '{self.id}' and tags.{EXPERIMENT_TAG} = '{experiment}'"
        for run in client.search_runs([mlflow().active_run().info.experiment_id], mine):
            for key, value in values.items():
                client.set_tag(run.info.run_id, key, value)

    @_sent_in_order
    def datasets(self, *splits: Split) -> None:
        """Log splits of the data as the run's datasets."""
        mlflow().MlflowClient().log_inputs(self.id, [dataset_input(split) for split in splits])

    @_sent_in_order
    def file(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file, or every file of a folder, as artifacts."""
        log_path = mlflow().log_artifacts if Path(path).is_dir() else mlflow().log_artifact
        log_path(str(path), folder)

    @_sent_in_order
    def table(self, columns: Mapping[str, Sequence[object]], path: str) -> None:
        """Log a table, shown in the UI; `path` ends with .json. It replaces an earlier one."""
        # What mlflow.log_table writes; but that appends to the rows of an earlier evaluation.
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        mlflow().log_dict({"columns": list(columns), "data": rows}, path)
        mlflow().set_tag("mlflow.loggedArtifacts", json.dumps([{"path": path, "type": "table"}]))

    @_sent_in_order
    def onnx_model(
        self, network: str, onnx_file: str | Path, code: str | Path, requirements: Sequence[str], example: str
    ) -> None:
        """Log a pyfunc model around an ONNX file, with signature: base64 images in, detections out.

        A run has one model per ONNX file, and the registered model one version, also where an export was
        killed and repeated.

        Args:
            network: names the model, as "resnet18-128".
            onnx_file: the exported detector.
            code: the Python file of the model; stored as source code, nothing is pickled.
            requirements: pinned pip requirements of `code`.
            example: base64 of an image, shown with the model.
        """
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
        from mlflow.types.schema import Array, Object, Property

        numbers = [Property(name, DataType.double) for name in ("x1", "y1", "x2", "y2", "score")]
        box = Object([*numbers, Property("label", DataType.string)])
        # Optional, so that the model itself says which column is missing: MLflow would send back all others.
        column = ColSpec(DataType.string, "image", required=False)
        signature = ModelSignature(
            Schema([column]),
            Schema([ColSpec(Array(box), "detections")]),
            ParamSchema([ParamSpec("score_threshold", DataType.double, 0.0)]),
        )
        digest = sha256(onnx_file)
        model_id = self._logged_model(digest) or self._log_onnx(
            name=logged_name(network),
            tags={ONNX_TAG: digest},
            python_model=str(code),
            artifacts={"onnx": str(onnx_file)},
            signature=signature,
            input_example={"image": [example]},
            pip_requirements=list(requirements),
        )
        register(self.registered, model_id, digest, self._run_of_weights())

    def _log_onnx(self, **model: Any) -> str:
        """Log it; its id."""
        return str(mlflow().pyfunc.log_model(**model).model_id)

    def _logged_model(self, digest: str) -> str:
        """Id of the run's model of this ONNX file, or ""; those of exports that were killed are deleted."""
        run = mlflow().active_run()
        assert run is not None, "entries are sent after the run was opened"
        mine = f"source_run_id = '{run.info.run_id}' AND tags.{ONNX_TAG} = '{digest}'"
        client = mlflow().MlflowClient()
        found = client.search_logged_models([run.info.experiment_id], mine)
        unfinished = [model for model in found if model.status != "READY"]
        for model in unfinished:
            client.delete_logged_model(model.model_id)
        return next((str(model.model_id) for model in found if model not in unfinished), "")

    @_sent_in_order
    def description(self) -> None:
        """Say in MLflow what the run and its versions are, by what was logged so far."""
        client = mlflow().MlflowClient()
        run = client.get_run(self.id)
        if is_ours(run.data.tags.get(NOTE_TAG, "")):
            client.set_tag(self.id, NOTE_TAG, description(run.data.params, run.data.metrics))
        if self.model_digest:
            update_versions(self.registered, self._run_of_weights())

    def _run_of_weights(self) -> Any:
        """The run of the model that the stage reads: this one or, of a child, another."""
        run = mlflow().active_run()
        found = self.model_digest and run_of_model(run.info.experiment_id, self.model_digest)
        return found or mlflow().MlflowClient().get_run(run.info.run_id)


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
        name: name of a new run if `settings.run_name` is empty; it should say what differs, and that first.
        stage_params: the parameters that the stage depends on. If the run of the model has logged the same
            stage with other values, a child run is created.
        model_digest: SHA-256 of the model file that the stage reads; None starts a new run.
        resume: id of a run to resume, if the store has it and it belongs to the same DVC experiment.
    """
    run = Run(registered_name(settings.experiment), model_digest)
    if not settings.enabled:
        yield run
        return
    # Out of the environment, or mlflow.start_run would resume the run that an engine names.
    parent = os.environ.pop("MLFLOW_RUN_ID", "")
    wanted = Stage(stage, name, stage_params, model_digest, resume, parent)
    run.outbox = Outbox(server_of(settings), partial(_open, run, settings, root, wanted))
    try:
        run.outbox.send()
        yield run
        if run.outbox.all_sent:  # or it would be told as missing, though it says nothing new
            run.description()
    except KeyboardInterrupt:
        _close(run, run.outbox, "KILLED")
        raise
    except BaseException:
        _close(run, run.outbox, "FAILED")
        raise
    _close(run, run.outbox, "FINISHED")


def _open(run: Run, settings: TrackingParams, root: Path, stage: Stage) -> list[Entry]:
    """Open it; what is to be sent first."""
    while mlflow().active_run() is not None:  # opened in part by an attempt that failed
        mlflow().end_run("KILLED")
    experiment_id, run.writer = open_store(settings, root)
    run.resumed, is_new = open_run(experiment_id, settings, stage, {WRITER_TAG: run.writer.name})
    run.id = mlflow().active_run().info.run_id
    params = {key: str(value) for key, value in stage.params.items()}
    return [Entry("params", lambda: mlflow().log_params(params))] if is_new and params else []


def _close(run: Run, outbox: Outbox, status: str) -> None:
    """Where MLflow fails, a later stage finds that the writer has ended, and closes the run."""
    outbox.close(in_haste=status == "KILLED")
    try:
        # Also while MLflow fails, or it would try at the exit of the process, and for longer.
        with brief_requests() if outbox.failing else nullcontext():
            while mlflow().active_run() is not None:
                mlflow().end_run(status)
        if run.writer:
            run.writer.gone()
    except Exception as error:  # noqa: BLE001 (whatever a database, a disk or a server raises)
        if not outbox.failing:
            log.warning("MLflow failed while closing the run (%s)", reason(error, outbox.uri))


def flat_params(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """{"train": {"lr": 0.1}} to {"train.lr": 0.1}: how parameters are named in MLflow."""
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
