"""Objects and detections of a few images, for the tests of the COCO evaluators."""

import numpy as np
import torch

from ssd.structures import Detections, Objects

NAMES = ["ant", "bee", "cat", "dog"]


def random_images(seed: int, num_images: int = 25) -> tuple[list[Detections], list[Objects]]:
    """Whole-pixel boxes and coarse scores, so that ties are common; no object of the last class."""
    random = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(num_images):
        num_objects, num_detections = int(random.integers(0, 6)), int(random.integers(0, 15))
        corners = random.integers(0, 60, (num_objects, 2))
        boxes = np.concatenate([corners, corners + random.integers(5, 50, (num_objects, 2))], axis=1)
        labels = random.integers(1, 4, num_objects)
        truth.append(
            Objects(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                torch.tensor(labels),
                torch.tensor(random.random(num_objects) < 0.25),
            )
        )
        corners = random.integers(0, 60, (num_detections, 2))
        guesses = np.concatenate([corners, corners + random.integers(5, 50, (num_detections, 2))], axis=1)
        guessed = random.integers(1, 5, num_detections)
        if num_objects:
            near = random.random(num_detections) < 0.7
            copied = random.integers(0, num_objects, num_detections)
            guesses[near] = boxes[copied][near] + random.integers(-2, 3, (near.sum(), 4))
            guessed[near] = labels[copied][near]
        scores = -np.sort(-random.integers(1, 10, num_detections) / 16)
        found.append(
            Detections(
                torch.tensor(guesses, dtype=torch.float32).reshape(-1, 4),
                torch.tensor(scores, dtype=torch.float32),
                torch.tensor(guessed),
            )
        )
    return found, truth


def crowded_images(seed: int) -> tuple[list[Detections], list[Objects]]:
    """Many detections, by only four scores, that are rivals for many objects, some of them ignored."""
    random = np.random.default_rng(seed)

    def boxes(num_boxes: int) -> torch.Tensor:
        corners = random.integers(0, 8, (num_boxes, 2))
        return torch.tensor(np.hstack([corners, corners + random.integers(6, 16, (num_boxes, 2))])).float()

    found, truth = [], []
    for _ in range(4):
        scores = torch.tensor(-np.sort(-random.integers(1, 5, 130) / 4)).float()
        found.append(Detections(boxes(130), scores, torch.tensor(random.integers(1, 3, 130))))
        ignored = torch.tensor(random.random(40) < 0.2)
        truth.append(Objects(boxes(40), torch.tensor(random.integers(1, 3, 40)), ignored))
    return found, truth


def one_image(
    boxes: list[list[float]], truth: list[list[float]], ignored: list[bool] | None = None
) -> tuple[list[Detections], list[Objects]]:
    """Detections of class 1 with falling scores, and objects of class 1."""
    num_boxes = len(boxes)
    return (
        [
            Detections(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                torch.linspace(0.9, 0.1, num_boxes),
                torch.ones(num_boxes, dtype=torch.int64),
            )
        ],
        [
            Objects(
                torch.tensor(truth, dtype=torch.float32).reshape(-1, 4),
                torch.ones(len(truth), dtype=torch.int64),
                torch.tensor(ignored or [False] * len(truth), dtype=torch.bool),
            )
        ],
    )
