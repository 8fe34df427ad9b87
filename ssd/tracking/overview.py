"""What MLflow shows of an experiment: the figures and params that runs are compared by, and a note.

By itself its table of runs has neither. A view that is shared is kept in a tag of the experiment, named by a
key; the address of the page with that key opens it (seen in MLflow 3.17; its tags `mlflow.experimentKind`
and `mlflow.experiment.primaryMetric` change nothing there).
"""

import json
from collections.abc import Mapping

KEY = "results"
VIEW_TAG = f"mlflow.sharedViewState.{KEY}"
NOTE_TAG = "mlflow.note.content"

METRICS = ("test/coco_map50", "test/coco_map", "test/voc_f1", "val/map50")
PARAMS = (
    *("data.source", "model.backbone", "model.input_size", "train.epochs", "train.batch_size", "train.lr"),
    *("train.seed", "augment.policy"),
)

OURS = "*Written by the pipeline; without this line, a text of yours stays.*"
"""Ends each note. A note without it is a person's."""

NOTE = f"""One run holds all stages of one training; a run inside another one is a stage with other settings.
Names of runs begin with what differs. Choose runs and press *Compare*. A run has curves under *Model
metrics*, pictures in `report` under *Artifacts*. Exported files are versions of a registered model.

{OURS}"""


def view() -> str:
    """The value of `VIEW_TAG`."""
    # Few, as the page is narrow: MLflow puts its own first, then metrics and params by name.
    columns = ["attributes.`Created`", *(f"metrics.`{name}`" for name in METRICS)]
    columns += [f"params.`{name}`" for name in PARAMS]
    return json.dumps(
        {
            "selectedColumns": columns,
            "orderByKey": f"metrics.`{METRICS[0]}`",
            "orderByAsc": False,
            "searchFilter": "",
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
        }
    )


def outdated_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that an experiment with these should get; a person's note stays."""
    wanted = {VIEW_TAG: view()}
    if is_ours(tags.get(NOTE_TAG, "")):
        wanted[NOTE_TAG] = NOTE
    return {key: value for key, value in wanted.items() if tags.get(key) != value}


def is_ours(note: str) -> bool:
    """Whether a note may be replaced: there is none, or it is of this package."""
    return not note.strip() or note.rstrip().endswith(OURS)


def address(server: str, experiment_id: str) -> str:
    """Of the page with this view; `server` is as "http://127.0.0.1:5000"."""
    return (
        f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={KEY}"
    )
