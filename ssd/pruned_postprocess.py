"""What `ssd.postprocess.PostProcessor` computes, in a fraction of the time, on a CPU.

Most priors are sure of the background: only the others get scores and boxes. And whether a candidate is kept
depends on better ones alone, so the best K detections of an image are found among its best few K candidates.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms

from ssd.boxes import decode

Array = NDArray[Any]

Found = tuple[Tensor, Tensor, Tensor]
"""boxes float32 [N, 4], scores float32 [N] and labels int64 [N] of an image, best first."""

FEW = 4
"""Candidates that NMS sees at first, times the wanted detections. Mostly they do; if not, it sees all."""


def detect(
    loc: Tensor,
    logits: Tensor,
    priors: Tensor,
    *,
    score_threshold: float,
    nms_iou: float,
    max_per_class: int,
    max_detections: int,
) -> Iterator[Found]:
    """Detections of each image, at most `max_detections`; boxes xyxy, shares of the image, clipped to it.

    Args:
        loc: float32 [B, P, 4]; logits: float32 [B, P, C], background first; on the CPU, without a gradient.
        priors: float32 [P, 4], cxcywh, shares of the image.
        score_threshold, nms_iou, max_per_class, max_detections: as in `ssd.postprocess.PostProcess`.
    """
    num_priors = len(priors)
    open_priors = [_open_priors(image.numpy(), score_threshold) for image in logits]
    for images in _groups([len(rows) for rows in open_priors], num_priors):
        rows = torch.from_numpy(np.concatenate([open_priors[i] + i * num_priors for i in images]))
        own_priors = priors.index_select(0, rows % num_priors)
        boxes = decode(loc.flatten(0, 1).index_select(0, rows), own_priors).clamp_(0, 1)
        probabilities = logits.flatten(0, 1).index_select(0, rows).softmax(-1).numpy()
        probabilities[:, 0] = 0  # of the background
        end = 0
        for i in images:
            start, end = end, end + len(open_priors[i])
            yield _best_apart(
                boxes[start:end],
                probabilities[start:end],
                score_threshold=score_threshold,
                nms_iou=nms_iou,
                max_per_class=max_per_class,
                max_detections=max_detections,
            )


def _open_priors(logits: Array, score_threshold: float) -> Array:
    """The priors of an image, [R], that have a score above the threshold; others too, sometimes.

    A score is not above t unless its logit is above the background's plus log(t). To see that costs one
    comparison, where a softmax would cost several times as much.
    """
    num_priors = len(logits)
    if score_threshold <= 0:
        return np.arange(num_priors)
    background = logits[:, 0].copy()
    rounding = 1e-5 + 1e-6 * np.abs(background)
    hopeful = logits[:, 1:] > (background + np.float32(math.log(score_threshold)) - rounding)[:, None]
    if np.count_nonzero(hopeful) > num_priors:
        return np.arange(num_priors)
    rows: Array = np.flatnonzero(hopeful) // hopeful.shape[1]
    distinct: Array = rows[np.diff(rows, prepend=-1) > 0]
    return distinct


def _groups(sizes: Sequence[int], limit: int) -> Iterator[range]:
    """Neighbours that together are no larger than the limit, or single ones: what is computed at a time."""
    start, total = 0, 0
    for end, size in enumerate(sizes):
        if end > start and total + size > limit:
            yield range(start, end)
            start, total = end, 0
        total += size
    if sizes:
        yield range(start, len(sizes))


def _best_apart(
    boxes: Tensor,
    probabilities: Array,
    *,
    score_threshold: float,
    nms_iou: float,
    max_per_class: int,
    max_detections: int,
) -> Found:
    """Top-k and NMS within each class, top-k of all: boxes [R, 4] and probabilities [R, C] of an image."""
    scores = probabilities.ravel()
    places = np.flatnonzero(scores > score_threshold)
    few = _highest(places, scores, FEW * max_detections)
    kept = _apart(boxes, probabilities, few, nms_iou, max_per_class, max_detections)
    if len(few) == len(places) or len(kept[1]) == max_detections:
        return kept
    if len(probabilities) > max_per_class:
        lowest = np.partition(probabilities, -max_per_class, axis=0)[-max_per_class]
        places = np.flatnonzero((probabilities > score_threshold) & (probabilities >= lowest))
    return _apart(boxes, probabilities, places, nms_iou, max_per_class, max_detections)


def _highest(places: Array, scores: Array, number: int) -> Array:
    """The places of the `number` highest scores, and of all that equal the lowest of them; as they stand."""
    if number >= len(places):
        return places
    scores = scores[places]
    highest: Array = places[scores >= np.partition(scores, -number)[-number]]
    return highest


def _apart(
    boxes: Tensor,
    probabilities: Array,
    places: Array,
    nms_iou: float,
    max_per_class: int,
    max_detections: int,
) -> Found:
    """Candidates at `places` of the flattened probabilities that stand apart in their class, best first."""
    scores = probabilities.ravel()[places]
    order = np.argsort(-scores, kind="stable")
    row, label = np.divmod(places[order], probabilities.shape[1])
    if len(order) > max_per_class:
        allowed = _rank_in_class(label) < max_per_class
        order, row, label = order[allowed], row[allowed], label[allowed]
    found = (
        boxes.index_select(0, torch.from_numpy(row)),
        torch.from_numpy(scores[order]),
        torch.from_numpy(label),
    )
    kept = _nms_within_classes(*found, nms_iou)[:max_detections]
    return found[0].index_select(0, kept), found[1].index_select(0, kept), found[2].index_select(0, kept)


def _rank_in_class(labels: Array) -> Array:
    """How many before each have its label: [N] to [N]."""
    order = np.argsort(labels, kind="stable")
    in_order = labels[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.searchsorted(in_order, in_order)
    return rank


def _nms_within_classes(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Greedy NMS in which boxes of different classes do not meet: int64 indices, best first.

    Each class is moved to a place of its own; in float64, where that loses nothing of a float32 share.
    """
    apart = boxes.double().add_(labels[:, None], alpha=2)
    kept: Tensor = nms(apart, scores.double(), iou_threshold)
    return kept
