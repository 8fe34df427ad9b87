"""The boxes of all images, concatenated, and the pairs among them that an evaluation compares."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssd.structures import Detections, Objects

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Flat(NamedTuple):
    """Boxes of many images: boxes float64 [M, 4], xyxy, pixels; labels int64 [M]; images int64 [M]."""

    boxes: Floats
    labels: Ints
    images: Ints

    def rows(self, index: Ints | Bools | slice) -> "Flat":
        """Some of them, in the order of `index`."""
        return Flat(self.boxes[index], self.labels[index], self.images[index])


def flat_boxes(items: Sequence[Detections] | Sequence[Objects], num_classes: int) -> Flat:
    """Concatenate the boxes of all images; item i belongs to image i.

    Raises:
        ValueError: a label is outside 1..num_classes.
    """
    labels = join([item.labels for item in items]).astype(np.int64)
    outside = labels[(labels < 1) | (labels > num_classes)]
    if len(outside):
        raise ValueError(f"label {outside[0]} is outside 1..{num_classes}")
    boxes = join([item.boxes for item in items]).astype(np.float64).reshape(-1, 4)
    return Flat(boxes, labels, np.repeat(np.arange(len(items)), [len(item.labels) for item in items]))


def join(tensors: Sequence[Tensor]) -> NDArray[Any]:
    """Concatenate tensors, with one transfer from their device."""
    return torch.cat(list(tensors)).cpu().numpy() if tensors else np.empty(0)


def pairs_of_equal_key(left: Ints, right: Ints) -> tuple[Ints, Ints]:
    """All (i, j) with left[i] == right[j], in the order of i, then of j; int64 [pairs] each."""
    by_key = np.argsort(right, kind="stable")
    start = np.searchsorted(right[by_key], left, side="left")
    num_pairs = np.searchsorted(right[by_key], left, side="right") - start
    first_pair = np.cumsum(num_pairs) - num_pairs
    i = np.repeat(np.arange(len(left)), num_pairs)
    j = by_key[np.arange(len(i)) + np.repeat(start - first_pair, num_pairs)]
    return i, j


def intersection(a: Floats, b: Floats) -> Floats:
    """Intersection area of paired xyxy boxes [N, 4], float64 [N]."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    return np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of paired xyxy boxes [N, 4], float64 [N]; 0 where they do not overlap.

    `ssd.boxes.iou` for NumPy, in float64 for exact evaluation.
    """
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def area(boxes: Floats) -> Floats:
    """Area of xyxy boxes [N, 4], float64 [N]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
