"""The whole detector as one module for export: images of any size in, final detections out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssd.models.family import Model
from ssd.models.kernels import IN_PYTORCH, Kernels
from ssd.postprocess import PostProcessSettings
from ssd.structures import MEAN, STD

DETECTOR_FORMAT = "ssd-detector-1"
"""Version of the inputs and outputs of `Detector.forward`; changes to those need a new version."""

IMAGES = "uint8 RGB [N, 3, H, W], as shown: turned by EXIF orientation, as PIL.ImageOps.exif_transpose does"
"""What an exported file takes, in its metadata. Preprocess turns the training images in the same way."""

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""boxes, scores, labels, num_detections, as `Detector.forward` describes them."""


class Detector(nn.Module):
    """Pre-processing, network, decoding and NMS.

    Args:
        model: the network; its weights are shared, not copied.
        settings: thresholds and the number of detections K.
        kernels: of the network and of its post-processor.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, settings: PostProcessSettings, kernels: Kernels = IN_PYTORCH) -> None:
        super().__init__()
        self.model = model.with_kernels(kernels)
        self.side = model.config.input_size
        self.postprocessor = model.postprocessor(settings, kernels.nms)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> Outputs:
        """Detect objects.

        Args:
            images: uint8 [N, 3, H, W], RGB, as shown (see IMAGES); N, H and W from 1.

        Returns:
            boxes float32 [N, K, 4], xyxy in pixels of the image; scores float32 [N, K], descending;
            labels int64 [N, K], 0 where unused; num_detections int64 [N]. Rows past num_detections are 0.
        """
        height, width = images.shape[2], images.shape[3]
        boxes, scores, labels, num_detections = self.postprocessor(*self.raw_outputs(images))
        return scale_boxes(boxes, height, width), scores, labels, num_detections

    def raw_outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Raw outputs of the network for images as in `forward`, what its post-processor takes."""
        resized = F.interpolate(images.float(), (self.side, self.side), mode="bilinear", antialias=True)
        outputs: tuple[Tensor, ...] = self.model((resized - self.mean) / self.std)
        return outputs


def scale_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """xyxy [..., 4], normalised, to pixels. Creates no tensor: a trace would fix its device."""
    x, y = boxes[..., 0::2] * width, boxes[..., 1::2] * height
    return torch.stack([x, y], dim=-1).flatten(-2)


def describe(detector: Detector, class_names: Sequence[str]) -> dict[str, Any]:
    """The metadata of an exported file, as JSON values.

    Label i of the outputs is `class_names[i - 1]`: 0 is background. `input_size` (pixels) is informative:
    the exported graph resizes the images.
    """
    settings = detector.postprocessor.settings
    return {
        "format": DETECTOR_FORMAT,
        "images": IMAGES,
        "class_names": list(class_names),
        "input_size": detector.side,
        "score_threshold": settings.score_threshold,
        "nms_iou": settings.nms_iou,
        "max_detections": settings.max_detections,
    }
