"""A part of stage 4: a model over a whole split."""

from ssd.evaluation import SplitResult, run_split
from ssd.hardware import choose_hardware
from ssd.loading.batches import EpochBatches
from ssd.loading.dataset import DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.loss import LossSettings, MultiBoxLoss
from ssd.models.ssd import SSD
from ssd.params import EvaluateParams
from ssd.postprocess import PostProcessor, PostProcessSettings


def detect(model: SSD, loss: LossSettings, file: TensorFile, params: EvaluateParams) -> SplitResult:
    """Run the model over the split, in float32 so that the figures do not depend on the machine."""
    hardware = choose_hardware(params.device, "fp32", "evaluate.device")
    model = model.to(hardware.device)
    side = model.config.input_size
    settings = PostProcessSettings(
        params.score_threshold, params.nms_iou, max_detections=params.max_detections
    )
    return run_split(
        model,
        MultiBoxLoss(model.priors, loss),
        PostProcessor(model.priors, settings),
        make_loader(
            DetectionDataset(file, side),
            EpochBatches(range(len(file)), params.batch_size, side, seed=None),
            params.workers,
            pin_memory=hardware.device.type == "cuda",
        ),
        hardware,
    )
