"""The score from which a detection counts: one for all classes, and others for some."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ssd.errors import UserError
from ssd.inference.detector_file import SETTINGS
from ssd.postprocess import PostProcessSettings
from ssd.structures import Detections

DEFAULT_SCORE = 0.3
"""For a model that does not state its operating point."""


@dataclass(frozen=True)
class Thresholds:
    """scores: float32 [C], the lowest score that counts, of each class."""

    scores: Tensor

    def keep(self, found: Detections) -> Detections:
        """The detections that reach the threshold of their class."""
        kept = found.scores >= self.scores[found.labels - 1]
        return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def choose_thresholds(
    metadata: Mapping[str, Any], score: float | None, class_scores: Sequence[str]
) -> Thresholds:
    """One threshold for all classes, but those that have their own.

    Args:
        metadata: of the model: its class names and, perhaps, a certificate with figures of the test split.
        score: None takes that of best F1 on the test split, if the certificate states it, or DEFAULT_SCORE.
        class_scores: "NAME=SCORE".

    Raises:
        UserError: there is no such class, or its score is no number from 0 to 1.
    """
    names = metadata["class_names"]
    if score is None:
        figures = (metadata.get("certificate") or {}).get("metrics") or {}
        score = float(figures.get("operating_score") or DEFAULT_SCORE)
    scores = torch.full((len(names),), score)
    for text in class_scores:
        name, value = parse_class_score(text)
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"its classes: {', '.join(names[:10])}"
            raise UserError(f"--class-score {text}: the model has no class {name!r}; {hint}")
        scores[names.index(name)] = value
    return Thresholds(scores)


def lowest_settings(score: float | None, class_scores: Sequence[str]) -> PostProcessSettings:
    """Settings by which a model.pt gives all detections that any class's threshold keeps."""
    scores = [parse_class_score(text)[1] for text in class_scores]
    given = scores if score is None else [*scores, score]
    return replace(SETTINGS, score_threshold=min([SETTINGS.score_threshold, *given]))


def parse_class_score(text: str) -> tuple[str, float]:
    """Name and score of "NAME=SCORE"; a name may hold the sign itself.

    Raises:
        UserError: it is not of this form.
    """
    name, _, number = text.rpartition("=")
    try:
        score = float(number)
    except ValueError:
        score = -1.0
    if not name or not 0 <= score <= 1:
        raise UserError(f"--class-score {text}: needed is NAME=SCORE, with a score from 0 to 1")
    return name, score
