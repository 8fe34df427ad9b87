"""A split of the data as MLflow lists it: name, digest and use."""

import json
from dataclasses import dataclass
from typing import Any

from ssd.tracking.client import mlflow

DIGEST_LENGTH = 12
"""MLflow takes 36 characters, and shows them beside the name."""


@dataclass(frozen=True)
class Split:
    """A split that a stage reads.

    name: of the data set; use: "train", "val" or "test"; digest: SHA-256 of its tensor files; path: of their
    folder; num_images, num_objects, class_names: what is in it.
    """

    name: str
    use: str
    digest: str
    path: str
    num_images: int
    num_objects: int
    class_names: list[str]


def dataset_input(split: Split) -> Any:
    """What MLflow's client logs."""
    entities = mlflow().entities
    profile = {
        "num_images": split.num_images,
        "num_objects": split.num_objects,
        "num_classes": len(split.class_names),
        "classes": split.class_names,
        "sha256": split.digest,
    }
    dataset = entities.Dataset(
        name=split.name,
        digest=split.digest[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": split.path}),
        profile=json.dumps(profile),
    )
    return entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", split.use)])
