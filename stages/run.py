"""The MLflow run that a stage logs to."""

from contextlib import AbstractContextManager
from pathlib import Path

from ssd.files import sha256
from ssd.loading.tensor_file import TensorFile
from ssd.params import Params
from ssd.tracking.datasets import Split
from ssd.tracking.run import Run, flat_params, tracked_run
from ssd.tracking.run_name import data_name
from stages.command import workspace


def stage_run(
    params: Params,
    stage: str,
    *,
    sections: set[str],
    name: str = "",
    model: Path | None = None,
    resume: str | None = None,
) -> AbstractContextManager[Run]:
    """Open the run of a stage; see `ssd.tracking.run.tracked_run`.

    Args:
        params: all of them.
        stage: its name.
        sections: of params.yaml, those that the stage's result depends on.
        name: of a new run; the stage's where empty.
        model: the model file that the stage reads; None for the stage that makes it.
        resume: id of the run of an earlier process that did a part of the same work.
    """
    return tracked_run(
        params.tracking,
        workspace(),
        stage,
        name=name or stage,
        stage_params=flat_params(params.model_dump(include=sections)),
        model_digest=sha256(model) if model else None,
        resume=resume,
    )


def log_splits(run: Run, params: Params, *files: TensorFile) -> None:
    """Log the splits that a stage reads as datasets, and their digests as tags, by which runs are found."""
    name = data_name(flat_params(params.model_dump(include={"data"})))
    splits = [
        Split(
            name,
            file.path.stem,
            sha256(file.path),
            file.path.as_posix(),
            len(file),
            len(file.labels),
            file.class_names,
        )
        for file in files
    ]
    run.tags({f"data_sha256_{split.use}": split.digest for split in splits})
    run.datasets(*splits)
