"""Time the two COCO backends of torchmetrics on the same synthetic detections.

    python -m benchmarks.coco_backend

The backends take turns, so that a slow minute of the machine hits both; the median of five is printed.
"""

import argparse
import time
from importlib.metadata import version
from statistics import median
from typing import get_args

import torch

from ssd.data.tensors import Objects
from ssd.metrics.coco import Backend, evaluate_coco
from ssd.metrics.detections import Detections

NUM_CLASSES, NUM_DETECTIONS, RUNS = 20, 100, 5


def synthetic_image(generator: torch.Generator) -> tuple[Detections, Objects]:
    """Up to five objects, one in ten ignored; half of the detections near an object, mostly of its class."""
    num_objects = int(torch.randint(6, (), generator=generator))
    objects = Objects(
        _boxes(num_objects, generator),
        torch.randint(1, NUM_CLASSES + 1, (num_objects,), generator=generator),
        torch.rand(num_objects, generator=generator) < 0.1,
    )
    boxes = _boxes(NUM_DETECTIONS, generator)
    labels = torch.randint(1, NUM_CLASSES + 1, (NUM_DETECTIONS,), generator=generator)
    if num_objects:
        near = torch.rand(NUM_DETECTIONS, generator=generator) < 0.5
        same_class = near & (torch.rand(NUM_DETECTIONS, generator=generator) < 0.8)
        index = torch.randint(num_objects, (NUM_DETECTIONS,), generator=generator)
        shifted = objects.boxes[index] + 6 * torch.randn(NUM_DETECTIONS, 4, generator=generator)
        boxes = torch.where(near[:, None], shifted, boxes)
        labels = torch.where(same_class, objects.labels[index], labels)
    scores = torch.rand(NUM_DETECTIONS, generator=generator).sort(descending=True).values
    return Detections(boxes, scores, labels), objects


def _boxes(num_boxes: int, generator: torch.Generator) -> torch.Tensor:
    corner = 400 * torch.rand(num_boxes, 2, generator=generator)
    size = 20 + 130 * torch.rand(num_boxes, 2, generator=generator)
    return torch.cat([corner, corner + size], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the two COCO backends of torchmetrics.")
    parser.add_argument("--images", type=int, default=1000)
    num_images = parser.parse_args().images

    generator = torch.Generator().manual_seed(0)
    images = [synthetic_image(generator) for _ in range(num_images)]
    detections, objects = [image[0] for image in images], [image[1] for image in images]
    class_names = [f"class {label}" for label in range(1, NUM_CLASSES + 1)]

    seconds: dict[Backend, list[float]] = {backend: [] for backend in get_args(Backend)}
    figures = {}
    for _ in range(RUNS):
        for backend, times in seconds.items():
            start = time.perf_counter()
            figures[backend] = evaluate_coco(detections, objects, class_names, backend)
            times.append(time.perf_counter() - start)

    print(f"{num_images} images, {NUM_CLASSES} classes, {NUM_DETECTIONS} detections each, median of {RUNS}")
    for backend, times in seconds.items():
        shown = " ".join(f"{value:.2f}" for value in times)
        print(f"{backend:17} {version(backend):7} {median(times):6.2f} s   ({shown})")
    ratio = median(seconds["pycocotools"]) / median(seconds["faster_coco_eval"])
    same = figures["pycocotools"] == figures["faster_coco_eval"]
    print(f"faster_coco_eval is {ratio:.1f} times as fast; figures {'equal' if same else 'DIFFER'}")


if __name__ == "__main__":
    main()
