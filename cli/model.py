"""The model file that a command line names: a path, or what MLflow, git with DVC, or torchvision has."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.revision import fetch_revision, revision_in
from ssd.files import expand_home
from ssd.params import TrackingParams, load_params
from ssd.tracking.model_files import fetch_model, is_mlflow_uri
from stages.command import workspace

PARAMS = Path("params.yaml")

COCO = "coco"
"""torchvision's ssd300_vgg16, as `model.weights: coco`."""


@contextmanager
def model_file(text: str) -> Iterator[Path]:
    """The file; if it is MLflow's, a git revision's or torchvision's ("coco"), a copy for the block.

    Raises:
        UserError: MLflow has no such file, DVC none of the revision, or torchvision's cannot be downloaded.
            Whether a path exists, who opens it says.
    """
    with tempfile.TemporaryDirectory(prefix="ssd-model-") as folder:
        if text == COCO:
            from ssd.inference.pretrained import save_coco_model  # torch takes seconds, verify needs none

            path = Path(folder) / "coco.pt"
            save_coco_model(path)
            yield path
        elif is_mlflow_uri(text):
            yield fetch_model(text, tracking_params(), workspace(), Path(folder))
        elif (revision := revision_in(text)) is not None:
            yield fetch_revision(revision, workspace(), Path(folder))
        else:
            yield expand_home(text)


def tracking_params() -> TrackingParams:
    """The `tracking` section of params.yaml here; its defaults in a folder that has none."""
    if PARAMS.is_file():
        return load_params(PARAMS).tracking
    return TrackingParams(enabled=True, experiment="ssd", run_name="", system_metrics=False, uri="")
