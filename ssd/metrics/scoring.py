"""All figures of a split: COCO's and Pascal's average precisions, recall, intervals, confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

from ssd.metrics.bootstrap import CocoIntervals, bootstrap_coco
from ssd.metrics.coco import coco_result, match_classes
from ssd.metrics.coco_pycocotools import CocoFigures, check_agreement, published_coco
from ssd.metrics.confusion import OperatingPoint, operating_point
from ssd.metrics.voc import VocResult, judge_detections, voc_result
from ssd.structures import Detections, Objects

VOC_IOU = 0.5


@dataclass(frozen=True)
class Figures:
    """The figures of a split; intervals are None without resamples."""

    coco: CocoFigures
    intervals: CocoIntervals | None
    num_resamples: int
    voc: VocResult
    operating_point: OperatingPoint


def score_split(
    detections: Sequence[Detections],
    objects: Sequence[Objects],
    class_names: Sequence[str],
    num_resamples: int,
    f1_score: float = 0.0,
) -> Figures:
    """Compute all figures; item i of detections and objects belongs to image i.

    Args:
        num_resamples: of the bootstrap; 0 = no intervals.
        f1_score: see `VocResult`.

    Raises:
        UserError: our evaluator and pycocotools disagree.
    """
    matches = match_classes(detections, objects, class_names)
    published = published_coco(detections, objects, class_names)
    check_agreement(published, coco_result(matches, class_names))
    intervals = None
    if num_resamples:
        intervals = bootstrap_coco(matches, class_names, len(objects), num_resamples)
    judged = judge_detections(detections, objects, len(class_names), VOC_IOU)
    voc = voc_result(judged, len(class_names), f1_score)
    return Figures(published, intervals, num_resamples, voc, operating_point(judged, len(class_names)))
