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

TORCHMETRICS_NAMES = {
    "map": "map",
    "map50": "map_50",
    "map75": "map_75",
    "map_small": "map_small",
    "map_medium": "map_medium",
    "map_large": "map_large",
    "ar1": "mar_1",
    "ar10": "mar_10",
    "ar100": "mar_100",
    "ar_small": "mar_small",
    "ar_medium": "mar_medium",
    "ar_large": "mar_large",
}
"""COCO's twelve figures: our names and those of torchmetrics."""

ALL_AREAS, ALL_DETECTIONS = 0, 2
"""Places in pycocotools' arrays: objects of any size; the largest of the three numbers of detections."""


@dataclass(frozen=True)
class CocoFigures:
    """COCO's figures; None where there is no object to find.

    figures: the twelve, by the names of TORCHMETRICS_NAMES; per_class_map, per_class_map50: AP and AP50 of
    each class, in label order.
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
        figures={ours: _known(found[theirs].numpy()) for ours, theirs in TORCHMETRICS_NAMES.items()},
        per_class_map={name: _of_class(precision, label) for label, name in enumerate(class_names, 1)},
        per_class_map50={
            name: _of_class(precision, label, slice(1)) for label, name in enumerate(class_names, 1)
        },
    )


def _class_precision(found: dict[str, Any]) -> dict[int, Floats]:
    """Precision [IoU thresholds, recall points] of each label in the data; -1 where it has no object."""
    if "precision" not in found:  # without any image
        return {}
    labels: Tensor = found["classes"].view(-1)  # a number where there is one
    precision: Floats = found["precision"].numpy()[..., ALL_AREAS, ALL_DETECTIONS]
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
