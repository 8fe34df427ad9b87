"""Whether the best values of a search beat the start: trainings of both by several seeds, compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t

from ssd.params import TuneParams
from ssd.training.selection import MEASURES

CONFIDENCE = 0.95

ON_TEST = {"val_map50": ("coco", "map50"), "val_map": ("coco", "map"), "val_f1": ("voc", "f1")}
"""Section and key of metrics.json that are on the test split what a field of the history is on val."""


def figure_on_test(metrics: Mapping[str, Mapping[str, float]], tune: TuneParams) -> float:
    """What the objective is on the test split, by the content of reports/metrics.json."""
    places = [ON_TEST[name] for name in MEASURES[tune.select_by]]
    if tune.is_fused:
        return fmean(metrics["ensemble"][key] for _, key in places)
    return fmean(metrics[section][key] for section, key in places)


@dataclass(frozen=True)
class Verdict:
    """A difference of two means with its interval.

    difference: mean of the best values less mean of the start; low, high: of the 95 % interval.
    """

    difference: float
    low: float
    high: float

    @property
    def is_better(self) -> bool:
        """Whether the interval lies above zero: the difference is larger than the spread over seeds."""
        return self.low > 0


def verdict(best: Sequence[float], start: Sequence[float]) -> Verdict:
    """Welch's t interval of the difference of the means, for samples of unequal variance.

    Args:
        best, start: a figure of each training, at least two of each.
    """
    difference = fmean(best) - fmean(start)
    parts = [stdev(sample) ** 2 / len(sample) for sample in (best, start)]
    if sum(parts) == 0:
        return Verdict(difference, difference, difference)
    # Welch (1947) and Satterthwaite's degrees of freedom.
    degrees = sum(parts) ** 2 / sum(
        part**2 / (len(sample) - 1) for part, sample in zip(parts, (best, start), strict=True)
    )
    half = float(t.ppf((1 + CONFIDENCE) / 2, degrees)) * math.sqrt(sum(parts))
    return Verdict(difference, difference - half, difference + half)
