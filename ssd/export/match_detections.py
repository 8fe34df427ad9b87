"""Whether two runtimes detect the same in one image, up to the rounding of their float arithmetic.

Rounding may swap two rows, and at a threshold it may add or remove one: a score close to the score threshold
or to the K-th score, an IoU close to the threshold of NMS, two scores so close that either box may suppress
the other. Detections are therefore matched, and an unmatched one must be explained by one of these cases.
Everything else is a disagreement.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.boxes import pairwise_iou
from ssd.postprocess import PostProcessSettings
from ssd.structures import Detections


@dataclass(frozen=True)
class Reference:
    """The results of the PyTorch detector for one image, after and before NMS.

    found: its detections; boxes: float32 [P, 1 or C - 1, 4], xyxy in pixels, one for all classes or one for
    each; scores: float32 [P, C - 1], without background; side: the image's longer side in pixels.
    """

    found: Detections
    boxes: Tensor
    scores: Tensor
    side: int


@dataclass(frozen=True)
class Agreement:
    """Agreement of a file with PyTorch on one image.

    box_difference: largest of the matched boxes, as a fraction of the longer side; score_difference:
    largest of the matched scores; num_matched; num_borderline: unmatched detections of either side that
    rounding explains; problem: a difference that it does not explain, "" if there is none.
    """

    box_difference: float
    score_difference: float
    num_matched: int
    num_borderline: int
    problem: str


def compare_detections(
    reference: Reference, other: Detections, settings: PostProcessSettings, tolerance: float
) -> Agreement:
    """Match the detections of a file with those of the PyTorch detector.

    Matched detections have the same label, scores that differ by at most `tolerance`, and boxes that differ
    by at most `tolerance` times the longer side in every coordinate.
    """
    found = reference.found
    box_differences, score_differences = _differences(found, other, reference.side)
    pairs = _match(torch.maximum(box_differences, score_differences), tolerance)
    rows, columns = pairs.unbind(1)
    alone = torch.ones(len(found.labels), dtype=torch.bool).index_fill_(0, rows, False)
    other_alone = torch.ones(len(other.labels), dtype=torch.bool).index_fill_(0, columns, False)

    rounding = _Rounding(reference, settings, tolerance)
    missing = alone & ~rounding.explains(found, alone, other, other_alone)
    surplus = other_alone & ~(
        rounding.explains(other, other_alone, found, alone) & rounding.is_candidate(other)
    )
    problem = ""
    if missing.any():
        row = int(missing.nonzero()[0])
        problem = f"misses {_say(found, row)}; {_nearest(box_differences[row], score_differences[row])}"
    elif surplus.any():
        row = int(surplus.nonzero()[0])
        nearest = _nearest(box_differences[:, row], score_differences[:, row])
        problem = f"has a surplus {_say(other, row)}; {nearest}"
    return Agreement(
        box_difference=_largest(box_differences[rows, columns]),
        score_difference=_largest(score_differences[rows, columns]),
        num_matched=len(pairs),
        num_borderline=int(alone.sum() + other_alone.sum()),
        problem=problem,
    )


class _Rounding:
    """Explains unmatched detections by rounding, where it can."""

    def __init__(self, reference: Reference, settings: PostProcessSettings, tolerance: float) -> None:
        self.reference = reference
        self.settings = settings
        self.tolerance = tolerance
        # Minimum score per class of NMS candidates, [C - 1].
        self.limits = torch.full(reference.scores.shape[1:], settings.score_threshold)
        if reference.scores.shape[0] > settings.max_per_class:
            best = reference.scores.topk(settings.max_per_class, dim=0).values
            self.limits = torch.maximum(self.limits, best[-1])

    def explains(self, here: Detections, alone: Tensor, there: Detections, there_alone: Tensor) -> Tensor:
        """bool [N]: which detections of one side may be missing from the other because of rounding alone.

        Args:
            here: detections of one side, [N]; alone: bool [N], the unmatched ones.
            there: detections of the other side, [M]; there_alone: bool [M].
        """
        limit = self.limits[here.labels - 1]
        if len(there.labels) == self.settings.max_detections:
            limit = limit.clamp(min=float(there.scores.min()))
        near_limit = here.scores <= limit + self.tolerance

        # Suppressed on the other side: by a detection that is not kept here, or by an IoU close to the
        # threshold. The suppressor's score is at least as high, up to rounding, so a chain of suppressions
        # starts with one of the cases above.
        iou = pairwise_iou(here.boxes, there.boxes)
        excess = iou - self.settings.nms_iou
        overlapping = (excess > -self.tolerance) & (there_alone | (excess <= self.tolerance))
        stronger = there.scores >= here.scores[:, None] - self.tolerance
        same_label = here.labels[:, None] == there.labels
        return near_limit | (overlapping & stronger & same_label).any(1)

    def is_candidate(self, other: Detections) -> Tensor:
        """bool [M]: which detections of a file are NMS candidates in PyTorch too, up to rounding."""
        boxes = self.reference.boxes.expand(-1, self.reference.scores.shape[1], -1)[:, other.labels - 1]
        distance = (other.boxes - boxes).abs().amax(-1).T
        boxes_agree = distance <= self.tolerance * self.reference.side
        proposed = self.reference.scores.T[other.labels - 1]
        scores_agree = (other.scores[:, None] - proposed).abs() <= self.tolerance
        reaches_nms = other.scores >= self.limits[other.labels - 1] - self.tolerance
        return (boxes_agree & scores_agree).any(1) & reaches_nms


def _differences(a: Detections, b: Detections, side: int) -> tuple[Tensor, Tensor]:
    """Differences of every pair, [N, M]: boxes (fraction of the longer side), scores; inf across labels."""
    different = a.labels[:, None] != b.labels
    boxes = (a.boxes[:, None] - b.boxes).abs().amax(-1) / side
    scores = (a.scores[:, None] - b.scores).abs()
    return boxes.masked_fill(different, torch.inf), scores.masked_fill(different, torch.inf)


def _match(differences: Tensor, tolerance: float) -> Tensor:
    """Pairs (row, column) int64 [pairs, 2], closest first, each row and column at most once."""
    close = (differences <= tolerance).nonzero()
    close = close[differences[close[:, 0], close[:, 1]].argsort(stable=True)]
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for row, column in close.tolist():
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2)


def _largest(differences: Tensor) -> float:
    return float(differences.max()) if len(differences) else 0.0


def _say(detections: Detections, row: int) -> str:
    box = ", ".join(f"{value:.1f}" for value in detections.boxes[row].tolist())
    return f"label {int(detections.labels[row])} at score {float(detections.scores[row]):.4f}, box ({box})"


def _nearest(box_differences: Tensor, score_differences: Tensor) -> str:
    """The difference to the nearest detection of the same label, in words."""
    if not box_differences.isfinite().any():
        return "the other side has no detection of that label"
    nearest = int(torch.maximum(box_differences, score_differences).argmin())
    return (
        f"the nearest detection of that label differs by {float(score_differences[nearest]):.2g} in score "
        f"and by {float(box_differences[nearest]):.2g} of the longer image side in box"
    )
