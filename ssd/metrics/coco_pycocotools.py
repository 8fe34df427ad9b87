"""COCO's published figures by torchmetrics with pycocotools, and their comparison with our own.

`ssd/metrics/coco.py` computes the same average precisions in a sixtieth of the time, so validation during
training uses it. What is published comes from here, and `check_agreement` refuses any difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from ssd.errors import UserError
from ssd.metrics.coco import IOU_THRESHOLDS, MAX_DETECTIONS, RECALL_POINTS, CocoResult
from ssd.metrics.pairs import Floats
from ssd.structures import Detections, Objects

TOLERANCE = 1e-6

ALL, SMALL, MEDIUM, LARGE = range(4)
"""Places of the sizes of objects in pycocotools' arrays."""

TOP1, TOP10, TOP100 = range(3)
"""Places of the numbers of detections."""


@dataclass(frozen=True)
class CocoFigures:
    """COCO's figures; None where there is no object to find.

    figures: the twelve, see `_twelve`; per_class_map, per_class_map50: AP and AP50 of each class, in label
    order.
    """

    figures: dict[str, float | None]
    per_class_map: dict[str, float | None]
    per_class_map50: dict[str, float | None]


def published_coco(
    detections: Sequence[Detections], objects: Sequence[Objects], class_names: Sequence[str]
) -> CocoFigures:
    """Score the detections of all images against their objects; item i of both belongs to image i.

    Ignored objects are crowds (iscrowd), the 100 best detections per image and class count, and areas are
    those of the boxes, in pixels of the images as they are in the tensor file.
    """
    metric = MeanAveragePrecision(
        backend="pycocotools",
        # Its own thresholds are float32: an IoU of exactly 0.55 misses 0.550000012.
        iou_thresholds=IOU_THRESHOLDS.tolist(),
        rec_thresholds=RECALL_POINTS.tolist(),
        max_detection_thresholds=[1, 10, MAX_DETECTIONS],
        extended_summary=True,
    )
    metric.warn_on_many_detections = False
    # In float64, because it subtracts corners, and float32 would round widths and heights.
    metric.update(
        [
            {"boxes": item.boxes.cpu().double(), "scores": item.scores.cpu(), "labels": item.labels.cpu()}
            for item in detections
        ],
        [
            {"boxes": item.boxes.double(), "labels": item.labels, "iscrowd": item.ignored.long()}
            for item in objects
        ],
    )
    found = metric.compute()
    precision = _class_precision(found)
    return CocoFigures(
        figures=_twelve(found),
        per_class_map={name: _of_class(precision, label) for label, name in enumerate(class_names, 1)},
        per_class_map50={
            name: _of_class(precision, label, slice(1)) for label, name in enumerate(class_names, 1)
        },
    )


def _twelve(found: dict[str, Any]) -> dict[str, float | None]:
    """COCO's twelve figures, as pycocotools' summary takes their means.

    From its float64 arrays: torchmetrics has the means in float32, in which a figure can miss its interval.
    """
    if "precision" not in found:  # without any image
        found = {"precision": np.full((10, 1, 1, 4, 3), -1.0), "recall": np.full((10, 1, 4, 3), -1.0)}
    precision, recall = np.asarray(found["precision"]), np.asarray(found["recall"])
    sizes = {"": ALL, "_small": SMALL, "_medium": MEDIUM, "_large": LARGE}
    precisions = {f"map{name}": precision[..., place, TOP100] for name, place in sizes.items()}
    precisions |= {"map50": precision[0, ..., ALL, TOP100], "map75": precision[5, ..., ALL, TOP100]}
    recalls = {
        "ar1": recall[..., ALL, TOP1],
        "ar10": recall[..., ALL, TOP10],
        "ar100": recall[..., ALL, TOP100],
        **{f"ar{name}": recall[..., place, TOP100] for name, place in sizes.items() if name},
    }
    order = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
    return {**{key: _known(precisions[key]) for key in order}, **{k: _known(v) for k, v in recalls.items()}}


def _class_precision(found: dict[str, Any]) -> dict[int, Floats]:
    """Precision [IoU thresholds, recall points] of each label in the data; -1 where it has no object."""
    if "precision" not in found:  # without any image
        return {}
    labels: Tensor = found["classes"].view(-1)  # a number where there is one
    precision: Floats = found["precision"].numpy()[..., ALL, TOP100]
    return {label: precision[:, :, column] for column, label in enumerate(labels.tolist())}


def _of_class(precision: dict[int, Floats], label: int, thresholds: slice = slice(None)) -> float | None:
    return _known(precision[label][thresholds]) if label in precision else None


def _known(values: Floats) -> float | None:
    """Mean of the values that are not -1, which is pycocotools' value for "no object"."""
    values = values[values > -1]
    return float(values.mean()) if len(values) else None


def check_agreement(published: CocoFigures, own: CocoResult) -> None:
    """Compare every figure that both have: the three mean average precisions, and those of each class.

    Raises:
        UserError: two of them differ by more than TOLERANCE.
    """
    pairs = {key: (published.figures[key], getattr(own, key)) for key in ("map", "map50", "map75")}
    for key in ("per_class_map", "per_class_map50"):
        theirs, ours = getattr(published, key), getattr(own, key)
        pairs |= {f"{key} of {name}": (theirs[name], ours[name]) for name in theirs}
    for what, (theirs, ours) in pairs.items():
        # None is no figure, and equals nothing but None.
        if not np.isclose(_number(theirs), _number(ours), rtol=0, atol=TOLERANCE, equal_nan=True):
            raise UserError(
                f"COCO's {what} is {theirs} by torchmetrics, but {ours} by ssd/metrics/coco.py, with which "
                "training validates; install the locked requirements.txt again, or report it with the "
                "detections that were scored"
            )


def _number(value: float | None) -> float:
    return np.nan if value is None else value
