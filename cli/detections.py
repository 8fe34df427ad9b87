"""A detector over all images of a split."""

import sys
from collections.abc import Sequence

from tqdm import tqdm

from ssd.inference.detector_file import DetectorFile, open_detector
from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import load_loss_settings, load_model
from ssd.params import EvaluateParams
from ssd.postprocess import PostProcessSettings
from ssd.structures import Detections
from stages.detect import detect

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
                "ensemble": 1,
                "models": [],
                "resamples": 0,
                "device": device,
                "workers": 0,
            }
        )
        return detect(model, load_loss_settings(detector.path), file, settings).detections
    return _detect_by_own_thresholds(detector, file)


def _detect_by_own_thresholds(detector: DetectorFile, file: TensorFile) -> list[Detections]:
    found: list[Detections] = []
    for start in tqdm(range(0, len(file), BATCH), "evaluating", unit="batch", leave=False, disable=None):
        found += detector.detect([file.image(index) for index in range(start, len(file))[:BATCH]])
    return found


def detect_alike(
    detectors: Sequence[DetectorFile], file: TensorFile, device: str = "auto"
) -> list[list[Detections]]:
    """The detections of models that are to be compared, all with the same thresholds.

    Those of an exported file are fixed: what it drops, others may not have either. Said on stderr.
    """
    exported = [detector for detector in detectors if detector.kind != "model.pt"]
    if not exported:
        return [detect_split(detector, file, device) for detector in detectors]
    settings = PostProcessSettings(
        max(detector.metadata["score_threshold"] for detector in exported),
        exported[0].metadata["nms_iou"],
        max_detections=min(detector.metadata["max_detections"] for detector in exported),
    )
    names = " and ".join(sorted({detector.path.name for detector in exported}))
    print(
        f"compared are scores above {settings.score_threshold:g}, at most {settings.max_detections} "
        f"detections per image: {names} gives no others",
        file=sys.stderr,
    )
    found = []
    for detector in detectors:
        if detector.kind == "model.pt":
            detector = open_detector(detector.path, device, settings)
        detected = _detect_by_own_thresholds(detector, file)
        found.append([_stricter(item, settings) for item in detected])
    return found


def _stricter(found: Detections, settings: PostProcessSettings) -> Detections:
    """Detections, best first, as a stricter score threshold and number of detections leave them."""
    kept = (found.scores > settings.score_threshold).nonzero()[: settings.max_detections, 0]
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def warn_of_thresholds(detector: DetectorFile) -> None:
    """Say on stderr that the figures of an exported file are those of its thresholds."""
    if detector.kind != "model.pt":
        threshold = detector.metadata["score_threshold"]
        print(
            f"{detector.path.name} drops scores below {threshold:g} and has at most "
            f"{detector.metadata['max_detections']} detections per image: its AP is lower than a model.pt's",
            file=sys.stderr,
        )
