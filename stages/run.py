"""The MLflow run that a stage logs to."""

from contextlib import AbstractContextManager
from pathlib import Path

from ssd.files import sha256
from ssd.params import Params
from ssd.tracking.run import Run, flat_params, tracked_run
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
