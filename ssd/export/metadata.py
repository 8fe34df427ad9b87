"""What an exported file says of itself, the same in both formats."""

from collections.abc import Sequence
from typing import Any

from ssd.detector import Detector

FORMAT = "ssd-detector-1"
"""Names the inputs and outputs of `Detector.forward`; a change of those is a new format."""


def describe(detector: Detector, class_names: Sequence[str]) -> dict[str, Any]:
    """All that a program needs beside the file, as JSON values.

    Label i of the outputs is `class_names[i - 1]`: 0 is background. `input_size` (pixels) is for
    information, the file resizes by itself.
    """
    settings = detector.postprocessor.settings
    return {
        "format": FORMAT,
        "class_names": list(class_names),
        "input_size": detector.side,
        "score_threshold": settings.score_threshold,
        "nms_iou": settings.nms_iou,
        "max_detections": settings.max_detections,
    }
