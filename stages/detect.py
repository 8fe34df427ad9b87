"""A part of stage 4: a model over a whole split."""

from collections.abc import Mapping
from typing import Any

from ssd.evaluation import SplitResult, run_split
from ssd.hardware import choose_hardware
from ssd.loading.batches import EpochBatches
from ssd.loading.dataset import DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.models.family import Model
from ssd.params import EvaluateParams
from ssd.postprocess import PostProcessSettings


def detect(
    model: Model, loss_settings: Mapping[str, Any], file: TensorFile, params: EvaluateParams
) -> SplitResult:
    """Run the model over the split, in float32 so that the figures do not depend on the machine."""
    hardware = choose_hardware(params.device, "fp32", "evaluate.device")
    model = model.to(hardware.device)
    side = model.config.input_size
    settings = PostProcessSettings(
        params.score_threshold, params.nms_iou, max_detections=params.max_detections
    )
    return run_split(
        model,
        model.criterion(loss_settings, side).to(hardware.device),
        model.postprocessor(settings),
        make_loader(
            DetectionDataset(file, side),
            EpochBatches(range(len(file)), params.batch_size, side, seed=None),
            params.workers,
            pin_memory=hardware.device.type == "cuda",
        ),
        hardware,
    )
