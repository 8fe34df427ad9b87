"""Weighted box fusion: the detections of several models on one image as one set.

Solovyev, Wang, Gabruseva: "Weighted boxes fusion: Ensembling boxes from different object detection models",
Image and Vision Computing 107, 2021, section 3.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ssd.structures import Detections

IOU_THRESHOLD = 0.55
"""The paper's best on Open Images and COCO (section 4.4)."""

Floats = NDArray[np.float64]


def fuse(
    detections: Sequence[Detections], iou_threshold: float = IOU_THRESHOLD, max_detections: int = 200
) -> Detections:
    """Fuse what several models detect on one image.

    All boxes, best first, are gathered into clusters: a box joins the cluster of its class whose fused box it
    overlaps most, if by more than the threshold, else it begins a new one. The fused box of a cluster is the
    mean of its boxes, weighted by their scores (equation 2); its score is their mean (equation 1), times
    min(T, N) / N for T boxes of N models (equation 3): what few of the models see counts for less.

    Args:
        detections: of each model, at least one, in pixels of the same image.
        iou_threshold: 0 to 1.
        max_detections: the best are kept.

    Returns:
        The fused detections, best first.
    """
    boxes = torch.cat([found.boxes for found in detections]).double().numpy()
    scores = torch.cat([found.scores for found in detections]).double().numpy()
    labels = torch.cat([found.labels for found in detections]).numpy()
    order = np.argsort(-scores, kind="stable")
    clusters = _Clusters(len(order))
    for row in order.tolist():
        clusters.add(boxes[row], scores[row], int(labels[row]), iou_threshold)
    fused, fused_scores, fused_labels = clusters.result(len(detections))
    best = np.argsort(-fused_scores, kind="stable")[:max_detections]
    return Detections(
        torch.from_numpy(fused[best]).float(),
        torch.from_numpy(fused_scores[best]).float(),
        torch.from_numpy(fused_labels[best]),
    )


def fuse_splits(
    splits: Sequence[Sequence[Detections]], iou_threshold: float = IOU_THRESHOLD, max_detections: int = 200
) -> list[Detections]:
    """`fuse` for each image of a split; item i of each model's detections belongs to image i."""
    return [fuse(found, iou_threshold, max_detections) for found in zip(*splits, strict=True)]


class _Clusters:
    """Clusters of boxes: their class, and sums by which they are fused."""

    def __init__(self, most: int) -> None:
        self.number = 0
        self.boxes: Floats = np.zeros((most, 4))
        self.weighted: Floats = np.zeros((most, 4))
        self.scores: Floats = np.zeros(most)
        self.sizes = np.zeros(most, np.int64)
        self.labels = np.zeros(most, np.int64)

    def add(self, box: Floats, score: float, label: int, iou_threshold: float) -> None:
        """Put a box into the cluster that it overlaps most, or begin a new one."""
        n = self.number
        overlap = np.where(self.labels[:n] == label, _iou(box, self.boxes[:n]), 0.0)
        place = int(overlap.argmax()) if n else 0
        if not n or overlap[place] <= iou_threshold:
            place, self.number = n, n + 1
            self.labels[place] = label
        self.weighted[place] += score * box
        self.scores[place] += score
        self.sizes[place] += 1
        self.boxes[place] = self.weighted[place] / self.scores[place]

    def result(self, num_models: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Fused boxes [K, 4], scores [K] and labels [K]."""
        n = self.number
        mean = self.scores[:n] / np.maximum(self.sizes[:n], 1)
        return self.boxes[:n], mean * np.minimum(self.sizes[:n], num_models) / num_models, self.labels[:n]


def _iou(box: Floats, others: Floats) -> Floats:
    """IoU of one box, xyxy [4], with others [K, 4]: float64 [K].

    For one pair at a time `ssd.boxes.pairwise_iou` takes ten times as long.
    """
    x1, y1 = np.maximum(box[0], others[:, 0]), np.maximum(box[1], others[:, 1])
    x2, y2 = np.minimum(box[2], others[:, 2]), np.minimum(box[3], others[:, 3])
    intersection = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    area = (box[2] - box[0]) * (box[3] - box[1])
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = np.maximum(area + areas - intersection, np.finfo(np.float64).tiny)
    return np.asarray(intersection / union)
