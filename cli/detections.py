"""A detector over all images of a split."""

import sys

from tqdm import tqdm

from ssd.inference.detector_file import DetectorFile
from ssd.loading.tensor_file import TensorFile
from ssd.loss import LossSettings
from ssd.models.saved import load_loss_settings, load_model
from ssd.params import EvaluateParams
from ssd.structures import Detections
from stages.evaluate import detect

BATCH = 32
"""Images."""


def detect_split(detector: DetectorFile, file: TensorFile, device: str = "auto") -> list[Detections]:
    """Its detections of every image: a model.pt's as the stage evaluate finds them, with its thresholds."""
    if detector.kind == "model.pt":
        model, _ = load_model(detector.path)
        settings = EvaluateParams.model_validate(
            {
                "batch_size": BATCH,
                "score_threshold": 0.01,
                "nms_iou": 0.45,
                "max_detections": 200,
                "resamples": 0,
                "device": device,
                "workers": 0,
            }
        )
        return detect(model, LossSettings(**load_loss_settings(detector.path)), file, settings).detections
    found: list[Detections] = []
    for start in tqdm(range(0, len(file), BATCH), "evaluating", unit="batch", leave=False, disable=None):
        found += detector.detect([file.image(index) for index in range(start, len(file))[:BATCH]])
    return found


def warn_of_thresholds(detector: DetectorFile) -> None:
    """Say on stderr that the figures of an exported file are those of its thresholds."""
    if detector.kind != "model.pt":
        threshold = detector.metadata["score_threshold"]
        print(
            f"{detector.path.name} drops scores below {threshold:g} and has at most "
            f"{detector.metadata['max_detections']} detections per image: its AP is lower than a model.pt's",
            file=sys.stderr,
        )
