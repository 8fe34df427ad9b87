"""A small detector with random weights as `open_detector` gives one, and limits that tests reach."""

from pathlib import Path

import torch
from small_detector import CLASS_NAMES, build_model

from ssd.detector import Detector, Outputs, describe
from ssd.inference.detector_file import DetectorFile
from ssd.postprocess import PostProcessSettings
from ssd.serving.upload import Limits

LIMITS = Limits(max_bytes=200_000, max_pixels=90_000, max_requests=4)


def detector_file() -> DetectorFile:
    """It drops scores below 0.3."""
    network = Detector(build_model(), PostProcessSettings(0.3, 0.45, max_detections=40))

    @torch.inference_mode()
    def run(images: torch.Tensor) -> Outputs:
        outputs: Outputs = network(images)
        return outputs

    return DetectorFile(Path("model.pt"), "model.pt", run, describe(network, CLASS_NAMES))
