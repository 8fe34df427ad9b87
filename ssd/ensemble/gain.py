"""What fusing several models gains over the first of them, and what each is worth alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from ssd.compare.comparison import Difference, compare_detections
from ssd.metrics.coco import evaluate_coco
from ssd.metrics.voc import evaluate_voc
from ssd.structures import Detections, Objects


class Single(NamedTuple):
    """COCO's figures of one model alone; None where there is no ground truth."""

    map: float | None
    map50: float | None


@dataclass(frozen=True)
class Gain:
    """Figures of the first model and of the fused ones; the intervals are of a paired bootstrap over images.

    map, map50: COCO's; f1: mean over classes, at IoU 0.5, of the first and of the fused; singles: of each
    model that is fused, the first first.
    """

    map: Difference
    map50: Difference
    f1: tuple[float | None, float | None]
    singles: tuple[Single, ...]

    def as_json(self) -> dict[str, Any]:
        """For metrics.json: figures of the fused models, their differences to the first, and the means."""
        return {
            "num_models": len(self.singles),
            "map": self.map.b,
            "map_gain": self.map.difference,
            "map_gain_interval": _as_list(self.map),
            "map_mean": _mean([single.map for single in self.singles]),
            "map50": self.map50.b,
            "map50_gain": self.map50.difference,
            "map50_gain_interval": _as_list(self.map50),
            "map50_mean": _mean([single.map50 for single in self.singles]),
            "f1": self.f1[1],
            "f1_gain": None if self.f1[0] is None or self.f1[1] is None else self.f1[1] - self.f1[0],
        }


def measure_gain(
    splits: Sequence[Sequence[Detections]],
    fused: Sequence[Detections],
    objects: Sequence[Objects],
    class_names: Sequence[str],
    num_resamples: int,
    f1_score: float,
) -> Gain:
    """Compare the fused detections with those of the first model; item i of each belongs to image i.

    Args:
        splits: the detections of each model; num_resamples: of the bootstrap, at least 1; f1_score: see
            `ssd.metrics.voc.VocResult`.
    """
    first, *others = splits
    compared = compare_detections(first, fused, objects, class_names, num_resamples)
    results = [evaluate_coco(found, objects, class_names) for found in others]
    singles = [Single(compared.map.a, compared.map50.a), *(Single(item.map, item.map50) for item in results)]
    f1 = [
        evaluate_voc(found, objects, len(class_names), f1_score=f1_score).mean_f1 for found in (first, fused)
    ]
    return Gain(compared.map, compared.map50, (f1[0], f1[1]), tuple(singles))


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _as_list(difference: Difference) -> list[float] | None:
    return None if difference.interval is None else list(difference.interval)
