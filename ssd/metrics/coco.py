"""Average precision as the COCO benchmark defines it: Lin et al., "Microsoft COCO", ECCV 2014."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torchmetrics.detection import MeanAveragePrecision

from ssd.data.tensors import Objects
from ssd.metrics.detections import Detections

Backend = Literal["pycocotools", "faster_coco_eval"]

MAX_DETECTIONS = 100

# As float64, like COCO's own: torchmetrics would make them in float32, where 0.6 is 0.60000002 and an IoU
# or a recall of exactly 0.6 falls short of it.
IOU_THRESHOLDS: list[float] = np.linspace(0.5, 0.95, 10).tolist()
RECALL_POINTS: list[float] = np.linspace(0.0, 1.0, 101).tolist()


@dataclass(frozen=True)
class CocoResult:
    """COCO's figures; None where there is no object to find.

    map: mean over classes and the IoU thresholds 0.50, 0.55, ... 0.95; map50, map75: at one threshold;
    per_class_map, per_class_map50: the same for each class name, in label order.
    """

    map: float | None
    map50: float | None
    map75: float | None
    per_class_map: dict[str, float | None]
    per_class_map50: dict[str, float | None]


def evaluate_coco(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    class_names: Sequence[str],
    backend: Backend = "faster_coco_eval",
) -> CocoResult:
    """Score the detections of all images against their objects; item i of both belongs to image i.

    Ignored objects go in as `iscrowd`: COCO's way of counting a detection neither right nor wrong. They
    are the objects that the VOC figures ignore too, but COCO matches them by the share of the detection
    inside them instead of by IoU, and lets each take any number of detections.

    The 100 best detections of a class in an image count, as in the benchmark's own code. The results with
    fewer (1, 10) are recalls, not given here.

    Args:
        class_names: without background; label 1 is the first.
        backend: both give the same figures; the default is 4.1 times as fast at 1000 images, 20 classes,
            100 detections each (`benchmarks/coco_backend.py`).

    Raises:
        ValueError: the two sequences differ in length, or a label has no name.
    """
    if len(detections) != len(objects):
        raise ValueError(f"{len(detections)} images with detections, but {len(objects)} with objects")
    if all(bool(item.ignored.all()) for item in objects):
        nothing: dict[str, float | None] = dict.fromkeys(class_names)
        return CocoResult(None, None, None, nothing, dict(nothing))

    metric = MeanAveragePrecision(
        box_format="xyxy",
        iou_thresholds=IOU_THRESHOLDS,
        rec_thresholds=RECALL_POINTS,
        max_detection_thresholds=[1, 10, MAX_DETECTIONS],
        extended_summary=True,  # the precision of each class without a second evaluation a class
        backend=backend,
        sync_on_compute=False,  # the caller has all images; other processes need not call this
    )
    metric.warn_on_many_detections = False  # the limit is the benchmark's and stated above
    metric.update([_prediction(item) for item in detections], [_target(item) for item in objects])
    result = metric.compute()

    # [IoU threshold, recall point, class, area range, detection limit]; all areas, 100 detections.
    precision = result["precision"][:, :, :, 0, -1]
    per_class_map: dict[str, float | None] = dict.fromkeys(class_names)
    per_class_map50: dict[str, float | None] = dict.fromkeys(class_names)
    # A single class comes without its dimension.
    for column, label in enumerate(result["classes"].reshape(-1).tolist()):
        if not 1 <= label <= len(class_names):
            raise ValueError(f"label {label} is outside 1..{len(class_names)}")
        name = class_names[label - 1]
        per_class_map[name] = _known(precision[:, :, column].mean())
        per_class_map50[name] = _known(precision[0, :, column].mean())
    return CocoResult(
        map=_known(result["map"]),
        map50=_known(result["map_50"]),
        map75=_known(result["map_75"]),
        per_class_map=per_class_map,
        per_class_map50=per_class_map50,
    )


def _prediction(item: Detections) -> dict[str, torch.Tensor]:
    return {"boxes": item.boxes.cpu(), "scores": item.scores.cpu(), "labels": item.labels.cpu()}


def _target(item: Objects) -> dict[str, torch.Tensor]:
    return {
        "boxes": item.boxes.cpu(),
        "labels": item.labels.cpu(),
        "iscrowd": item.ignored.long().cpu(),
    }


def _known(value: torch.Tensor) -> float | None:
    """COCO's code says -1 where there is no object: for a class, then all of its values are -1."""
    return float(value) if value >= 0 else None
