"""Bootstrap confidence intervals of COCO's average precisions, over the images of a split.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3 (percentile intervals): the
images are drawn with replacement, as many as there are, and the figures computed anew, many times over.

Matching is per image and so is done once: an image that is drawn k times is an image of weight k, and each
resample a weighted sum over the same detections, best first. Precision rises only at true positives, so the
detections between two of them are added up first. Where detections have equal scores, the order of repeated
images would matter by a little; here all copies of a detection come together.

Two detectors on the same images are compared in the same resamples (paired): what makes a resample easy or
hard, it is for both, and falls out of their difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd.metrics.coco import IOU_THRESHOLDS, RECALL_POINTS, ClassMatches
from ssd.metrics.pairs import Floats, Ints

Interval = tuple[float, float]
Draws = NDArray[np.int32]
Counts = NDArray[np.integer]

PERCENTILES = (2.5, 97.5)
SEED = 0
CHUNK = 64
"""Resamples that are computed at once: few enough for the processor's cache."""


@dataclass(frozen=True)
class CocoIntervals:
    """95 % intervals of the figures of the same name in `CocoResult`; None where there is no ground truth.

    That of a class is over the resamples that contain an object of it.
    """

    map: Interval | None
    map50: Interval | None
    per_class_map: dict[str, Interval | None]
    per_class_map50: dict[str, Interval | None]


def bootstrap_coco(
    matches: Mapping[str, ClassMatches],
    class_names: Sequence[str],
    num_images: int,
    num_resamples: int,
    seed: int = SEED,
) -> CocoIntervals:
    """Intervals over resamples of the images; the same seed gives the same intervals.

    Args:
        matches: of `match_classes`; class_names: all classes; num_images: of the split; num_resamples: at
            least 1.
    """
    chunks = [resampled(matches, draws) for draws in draw_images(num_images, num_resamples, seed)]
    return _intervals(np.concatenate(chunks, axis=2), list(matches), class_names)


def bootstrap_difference(
    matches: Mapping[str, ClassMatches],
    others: Mapping[str, ClassMatches],
    class_names: Sequence[str],
    num_images: int,
    num_resamples: int,
    seed: int = SEED,
) -> CocoIntervals:
    """Intervals of the differences, the figures of `others` minus those of `matches`, in the same resamples.

    Args:
        matches, others: of `match_classes`, of two detectors on the same images and objects; the other
            arguments as those of `bootstrap_coco`.
    """
    assert list(matches) == list(others), "the same objects have the same classes"
    chunks = [
        resampled(others, draws) - resampled(matches, draws)
        for draws in draw_images(num_images, num_resamples, seed)
    ]
    return _intervals(np.concatenate(chunks, axis=2), list(matches), class_names)


def _intervals(every: Floats, names: Sequence[str], class_names: Sequence[str]) -> CocoIntervals:
    """Percentiles of AP, or of differences of AP, float64 [names, IoU thresholds, resamples]."""
    map_, map50 = every.mean(axis=1), every[:, 0]
    rows = {name: row for row, name in enumerate(names)}

    def per_class(values: Floats) -> dict[str, Interval | None]:
        return {name: _interval(values[rows[name]]) if name in rows else None for name in class_names}

    return CocoIntervals(
        map=_interval(_mean_over_classes(map_)),
        map50=_interval(_mean_over_classes(map50)),
        per_class_map=per_class(map_),
        per_class_map50=per_class(map50),
    )


def draw_images(num_images: int, num_resamples: int, seed: int) -> Iterator[Draws]:
    """How often each image is drawn, int32 [at most CHUNK resamples, images] at a time."""
    random = np.random.default_rng(seed)
    for start in range(0, num_resamples, CHUNK):
        size = min(CHUNK, num_resamples - start)
        drawn = random.integers(0, max(num_images, 1), (size, num_images))
        flat = (drawn + num_images * np.arange(size)[:, None]).ravel()
        yield np.bincount(flat, minlength=size * num_images).reshape(size, num_images).astype(np.int32)


def resampled(matches: Mapping[str, ClassMatches], draws: Draws) -> Floats:
    """COCO's AP of each class in each resample, float64 [classes, IoU thresholds, resamples].

    NaN where a resample has no object of the class. The mean over the thresholds is its AP, the first is its
    AP50; means over classes leave out the NaN.

    Args:
        draws: int32 [resamples, images], how often each image is drawn.
    """
    by_image = np.ascontiguousarray(draws.T)
    found = [_average_precision(found, draws, by_image) for found in matches.values()]
    return np.stack(found) if found else np.empty((0, len(IOU_THRESHOLDS), len(draws)))


def _average_precision(found: ClassMatches, draws: Draws, by_image: Draws) -> Floats:
    """AP of one class, float64 [IoU thresholds, resamples]; by_image: the transpose of draws."""
    num_objects = by_image[found.object_images].sum(axis=0)
    result = np.where(num_objects > 0, 0.0, np.nan) * np.ones((len(IOU_THRESHOLDS), 1))
    places = np.flatnonzero(found.correct.any(axis=0))
    if not len(places):
        return result
    # Detections from one place to the next, added up before they are multiplied by the resamples' cumsum.
    starts = np.concatenate([[0], places[:-1] + 1])
    between = np.add.reduceat(by_image[found.images[: places[-1] + 1]], starts, axis=0)
    num_drawn = np.cumsum(np.ascontiguousarray(between.T), axis=1)
    for row, (correct, wrong) in enumerate(zip(found.correct, found.wrong, strict=True)):
        here = correct[places]
        hits = places[here]
        num_correct = np.cumsum(draws[:, found.images[hits]], axis=1)
        uncounted = np.flatnonzero(~(correct | wrong))
        num_counted = num_drawn[:, here] - _num_before(hits, uncounted, found.images, draws)
        result[row] += _area(num_correct, num_counted, num_objects)
    return result


def _num_before(hits: Ints, uncounted: Ints, images: Ints, draws: Draws) -> Counts:
    """How many of the uncounted detections come before each hit, in each resample; [resamples, hits]."""
    before = np.searchsorted(uncounted, hits)
    if not before.any():
        return np.zeros((1, len(hits)), dtype=np.int64)
    total = np.cumsum(draws[:, images[uncounted]], axis=1)
    return np.concatenate([np.zeros((len(draws), 1), dtype=total.dtype), total], axis=1)[:, before]


def _area(num_correct: Counts, num_counted: Counts, num_objects: Counts) -> Floats:
    """Mean over the recall points of the interpolated precision, float64 [resamples].

    Args:
        num_correct, num_counted: [resamples, hits], cumulative at each hit; num_objects: [resamples].
    """
    # As in ssd/metrics/coco.py, whose figures these are for images that are all drawn once.
    precision = num_correct / (num_counted + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = num_correct / np.maximum(num_objects, 1)[:, None]
    # Each recall point takes the precision of the first hit that reaches it.
    reached = np.searchsorted(RECALL_POINTS, recall, side="right")
    points = np.diff(reached, axis=1, prepend=0)
    mean: Floats = np.einsum("ij,ij->i", envelope, points) / len(RECALL_POINTS)
    return mean


def _mean_over_classes(values: Floats) -> Floats:
    """Of [classes, resamples], float64 [resamples]; NaN where no class has an object."""
    known = ~np.isnan(values)
    total, number = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0)
    mean: Floats = np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
    return mean


def _interval(values: Floats) -> Interval | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)
