"""Whether two runtimes say the same of one image, when their float arithmetic rounds differently.

Rounding may swap two rows, and through a threshold it may add or remove one: a score next to the score
threshold or to the K-th score, an overlap next to that of NMS, two scores so close that either box may
suppress the other. Detections are therefore matched, and one without a partner must have such a reason.
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
    """What the PyTorch detector says of one image, and what it says before NMS.

    found: its detections; boxes: float32 [P, 4], xyxy in pixels; scores: float32 [P, C - 1], without
    background; side: the image's longer side in pixels.
    """

    found: Detections
    boxes: Tensor
    scores: Tensor
    side: int


@dataclass(frozen=True)
class Agreement:
    """How well a file agrees on one image.

    box_difference: largest of the matched boxes, as a share of the longer side; score_difference:
    largest of the matched scores; num_matched; num_borderline: detections of either side without
    partner that rounding explains; problem: what it does not explain, "" where all is well.
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

    Partners have the same label, scores that differ by at most `tolerance`, and boxes that differ by at
    most `tolerance` times the longer side in every coordinate.
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
    """The reasons for which a detection may have no partner."""

    def __init__(self, reference: Reference, settings: PostProcessSettings, tolerance: float) -> None:
        self.reference = reference
        self.settings = settings
        self.tolerance = tolerance
        # What a score of each class must exceed, or reach, to get to NMS, [C - 1].
        self.limits = torch.full(reference.scores.shape[1:], settings.score_threshold)
        if reference.scores.shape[0] > settings.max_per_class:
            best = reference.scores.topk(settings.max_per_class, dim=0).values
            self.limits = torch.maximum(self.limits, best[-1])

    def explains(self, here: Detections, alone: Tensor, there: Detections, there_alone: Tensor) -> Tensor:
        """bool [n]: which detections of one side could be absent from the other by rounding alone.

        Args:
            here: detections of one side, [n]; alone: bool [n], those without a partner.
            there: detections of the other side, [m]; there_alone: bool [m].
        """
        limit = self.limits[here.labels - 1]
        if len(there.labels) == self.settings.max_detections:
            limit = limit.clamp(min=float(there.scores.min()))
        near_limit = here.scores <= limit + self.tolerance

        # Suppressed over there: by a detection that is not kept here, or by an overlap that hardly
        # differs from the limit. The suppressor scores at least as much, up to rounding, so a chain of
        # suppressions leads back to a reason above.
        iou = pairwise_iou(here.boxes, there.boxes)
        excess = iou - self.settings.nms_iou
        overlapping = (excess > -self.tolerance) & (there_alone | (excess <= self.tolerance))
        stronger = there.scores >= here.scores[:, None] - self.tolerance
        same_label = here.labels[:, None] == there.labels
        return near_limit | (overlapping & stronger & same_label).any(1)

    def is_candidate(self, other: Detections) -> Tensor:
        """bool [m]: which detections of a file the PyTorch detector takes to NMS too, up to rounding."""
        distance = (other.boxes[:, None] - self.reference.boxes).abs().amax(-1)
        boxes_agree = distance <= self.tolerance * self.reference.side
        proposed = self.reference.scores.T[other.labels - 1]
        scores_agree = (other.scores[:, None] - proposed).abs() <= self.tolerance
        reaches_nms = other.scores >= self.limits[other.labels - 1] - self.tolerance
        return (boxes_agree & scores_agree).any(1) & reaches_nms


def _differences(a: Detections, b: Detections, side: int) -> tuple[Tensor, Tensor]:
    """Differences of every pair, [n, m]: boxes (share of the longer side), scores; infinite across labels."""
    different = a.labels[:, None] != b.labels
    boxes = (a.boxes[:, None] - b.boxes).abs().amax(-1) / side
    scores = (a.scores[:, None] - b.scores).abs()
    return boxes.masked_fill(different, torch.inf), scores.masked_fill(different, torch.inf)


def _match(differences: Tensor, tolerance: float) -> Tensor:
    """Pairs (row, column) int64 [p, 2], closest first, each row and column at most once."""
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
    """How far the nearest possible partner is."""
    if not box_differences.isfinite().any():
        return "the other side has none of that label"
    nearest = int(torch.maximum(box_differences, score_differences).argmin())
    return (
        f"the nearest of that label differs by {float(score_differences[nearest]):.2g} in score and by "
        f"{float(box_differences[nearest]):.2g} of the longer image side in box"
    )
