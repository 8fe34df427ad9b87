"""Two detectors on the same images: the difference of their figures, and the images that changed most.

The errors of an image are counted at each detector's own operating point, as its confusion matrix counts them
(`ssd/metrics/outcomes.py`): classes taken for others, false alarms and missed objects. Unlike AP, that is a
number for a single image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssd.metrics.bootstrap import Interval, bootstrap_difference
from ssd.metrics.coco import CocoResult, coco_result, match_classes
from ssd.metrics.confusion import best_score
from ssd.metrics.outcomes import Outcomes, outcomes
from ssd.metrics.pairs import Ints
from ssd.metrics.scoring import VOC_IOU
from ssd.metrics.voc import judge_detections
from ssd.structures import Detections, Objects

Verdict = Literal["A", "B", "none"]


@dataclass(frozen=True)
class Difference:
    """A figure of both detectors, b - a, and its 95 % interval; all None where there is no ground truth."""

    a: float | None
    b: float | None
    difference: float | None
    interval: Interval | None


@dataclass(frozen=True)
class ChangedImage:
    """An image, by its index, and the numbers of errors of A and B, which differ."""

    image: int
    errors_a: int
    errors_b: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """Differences of COCO's figures; per class in label order, AP and AP at IoU 0.5.

    outcomes: of A and B at their operating points; changed: the images with different numbers of errors, the
    largest difference first, equal ones in their order.
    """

    map: Difference
    map50: Difference
    per_class_map: dict[str, Difference]
    per_class_map50: dict[str, Difference]
    outcomes: tuple[Outcomes, Outcomes]
    changed: tuple[ChangedImage, ...]

    @property
    def verdict(self) -> Verdict:
        """Which one is better: on which side of zero the interval of the difference of mAP lies."""
        low, high = self.map.interval or (0.0, 0.0)
        if low > 0:
            return "B"
        return "A" if high < 0 else "none"


def compare_detections(
    a: Sequence[Detections],
    b: Sequence[Detections],
    objects: Sequence[Objects],
    class_names: Sequence[str],
    num_resamples: int,
) -> Comparison:
    """Compare the detections of all images; item i of `a`, `b` and `objects` belongs to image i.

    Args:
        num_resamples: of the paired bootstrap over the images, at least 1.
    """
    matches = [match_classes(found, objects, class_names) for found in (a, b)]
    of_a, of_b = (coco_result(found, class_names) for found in matches)
    intervals = bootstrap_difference(matches[0], matches[1], class_names, len(objects), num_resamples)
    judged = [judge_detections(found, objects, len(class_names), VOC_IOU) for found in (a, b)]
    of_points = [outcomes(found, best_score(found)) for found in judged]
    return Comparison(
        map=_difference(of_a.map, of_b.map, intervals.map),
        map50=_difference(of_a.map50, of_b.map50, intervals.map50),
        per_class_map=_per_class("per_class_map", of_a, of_b, intervals.per_class_map),
        per_class_map50=_per_class("per_class_map50", of_a, of_b, intervals.per_class_map50),
        outcomes=(of_points[0], of_points[1]),
        changed=_changed(*(found.num_errors(len(objects)) for found in of_points)),
    )


def _changed(errors_a: Ints, errors_b: Ints) -> tuple[ChangedImage, ...]:
    change = np.abs(errors_a - errors_b)
    order = np.argsort(-change, kind="stable")[: np.count_nonzero(change)].tolist()
    return tuple(ChangedImage(image, int(errors_a[image]), int(errors_b[image])) for image in order)


def _difference(a: float | None, b: float | None, interval: Interval | None) -> Difference:
    return Difference(a, b, None if a is None or b is None else b - a, interval)


def _per_class(
    key: str, a: CocoResult, b: CocoResult, intervals: dict[str, Interval | None]
) -> dict[str, Difference]:
    of_a, of_b = getattr(a, key), getattr(b, key)
    return {name: _difference(of_a[name], of_b[name], interval) for name, interval in intervals.items()}
