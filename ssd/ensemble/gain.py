"""What fusing several models gains over the best of them, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssd.compare.comparison import Difference, compare_detections
from ssd.metrics.voc import evaluate_voc
from ssd.structures import Detections, Objects


@dataclass(frozen=True)
class Gain:
    """Figures of the first model and of the fused ones; the intervals are of a paired bootstrap over images.

    map, map50: COCO's; f1: mean over classes, at IoU 0.5, of the first and of the fused; num_models: that are
    fused.
    """

    num_models: int
    map: Difference
    map50: Difference
    f1: tuple[float | None, float | None]

    def as_json(self) -> dict[str, Any]:
        """For metrics.json: figures of the fused models, and their differences."""
        return {
            "num_models": self.num_models,
            "map": self.map.b,
            "map_gain": self.map.difference,
            "map_gain_interval": _as_list(self.map),
            "map50": self.map50.b,
            "map50_gain": self.map50.difference,
            "map50_gain_interval": _as_list(self.map50),
            "f1": self.f1[1],
            "f1_gain": None if self.f1[0] is None or self.f1[1] is None else self.f1[1] - self.f1[0],
        }


def measure_gain(
    first: Sequence[Detections],
    fused: Sequence[Detections],
    objects: Sequence[Objects],
    class_names: Sequence[str],
    num_models: int,
    num_resamples: int,
    f1_score: float,
) -> Gain:
    """Compare the detections of the first model with the fused ones; item i belongs to image i.

    f1_score: see `ssd.metrics.voc.VocResult`.
    """
    compared = compare_detections(first, fused, objects, class_names, max(num_resamples, 1))
    f1 = [
        evaluate_voc(found, objects, len(class_names), f1_score=f1_score).mean_f1 for found in (first, fused)
    ]
    return Gain(num_models, compared.map, compared.map50, (f1[0], f1[1]))


def _as_list(difference: Difference) -> list[float] | None:
    return None if difference.interval is None else list(difference.interval)
