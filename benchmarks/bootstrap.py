"""Bootstrap intervals of COCO's average precisions, matching included."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.harness import Benchmark, Comparison
from benchmarks.scenes import random_detections
from ssd.metrics.bootstrap import CocoIntervals, bootstrap_coco
from ssd.metrics.coco import match_classes
from ssd.structures import Detections, Objects

NUM_DETECTIONS, NUM_RESAMPLES = 100, 1000
SIZES = {"small": (300, 8, 2.0), "large": (5000, 20, 60.0)}
"""Numbers of images and of classes, and the aim in seconds."""


@dataclass(frozen=True)
class Split:
    """Detections and objects of a data set, and its class names."""

    detections: list[Detections]
    objects: list[Objects]
    class_names: list[str]


def benchmark(
    sizes: dict[str, tuple[int, int, float]] = SIZES, num_resamples: int = NUM_RESAMPLES, runs: int = 5
) -> Benchmark[dict[str, Split]]:
    """The intervals of the stage `evaluate`, on the default data set's size and on that of VOC and COCO."""
    return Benchmark(
        name="bootstrap",
        settings={"resamples": num_resamples, "detections an image": NUM_DETECTIONS},
        make_inputs=partial(make_splits, sizes),
        candidates={name: partial(ours, name, num_resamples) for name in sizes},
        comparisons=tuple(
            Comparison(
                f"{num_resamples} bootstrap resamples, {num_images} images, {num_classes} classes, "
                f"{NUM_DETECTIONS} detections each",
                name,
                max_seconds=aim,
            )
            for name, (num_images, num_classes, aim) in sizes.items()
        ),
        warmup=1,
        runs=runs,
        num_threads=1,
    )


def make_splits(sizes: dict[str, tuple[int, int, float]]) -> dict[str, Split]:
    splits = {}
    for name, (num_images, num_classes, _) in sizes.items():
        generator = torch.Generator().manual_seed(0)
        found, truth = random_detections(num_images, num_classes, NUM_DETECTIONS, generator)
        splits[name] = Split(found, truth, [f"class {label}" for label in range(1, num_classes + 1)])
    return splits


def ours(name: str, num_resamples: int, splits: dict[str, Split]) -> Callable[[], CocoIntervals]:
    split = splits[name]

    def step() -> CocoIntervals:
        matches = match_classes(split.detections, split.objects, split.class_names)
        return bootstrap_coco(matches, split.class_names, len(split.objects), num_resamples)

    return step
