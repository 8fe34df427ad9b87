"""Data structures that the modules share: annotated objects, training targets, detections.

Each type has one unit: `Objects` and `Detections` are in pixels of their image; `Target` and `Targets` are
normalised to [0, 1] by the sides of the network's view. Boxes are xyxy everywhere: x1, y1, x2, y2, 0-based
and half-open, so that x2 - x1 is the width. Labels are 1..C; 0 is background.

Shapes and dtypes are checked on construction and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""ImageNet's mean and standard deviation of R, G and B on the scale 0..255, as published weights expect."""


@dataclass(frozen=True)
class Objects:
    """The annotated objects of one image, in pixels of that image.

    boxes: float32 [M, 4], xyxy, pixels; labels: int64 [M], 1..C; ignored: bool [M], objects (difficult,
    crowd) that count neither as ground truth nor as background.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor

    def __post_init__(self) -> None:
        _check(self.boxes, self.labels, self.ignored, num_dims=1)


@dataclass(frozen=True)
class Target:
    """The ground truth of one network input: a view of the image, stretched to the input size.

    boxes: float32 [M, 4], xyxy, normalised to [0, 1] by the sides of the view and clipped to it; labels:
    int64 [M], 1..C; ignored: bool [M], as in `Objects`.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor

    def __post_init__(self) -> None:
        _check(self.boxes, self.labels, self.ignored, num_dims=1)


@dataclass(frozen=True)
class Targets:
    """The targets of a batch, padded to M, the largest number of objects per image.

    boxes: float32 [B, M, 4], xyxy, normalised to [0, 1]; labels: int64 [B, M], 0 where padded; ignored: bool
    [B, M].
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor

    def __post_init__(self) -> None:
        _check(self.boxes, self.labels, self.ignored, num_dims=2)

    @staticmethod
    def pad(images: Sequence[Target]) -> "Targets":
        """Pad and stack the targets of the images of a batch, at least one."""
        return Targets(
            pad_sequence([image.boxes for image in images], batch_first=True),
            pad_sequence([image.labels for image in images], batch_first=True),
            pad_sequence([image.ignored for image in images], batch_first=True),
        )

    def to(self, device: torch.device | str) -> "Targets":
        """Copies on `device`; from pinned memory the copy is asynchronous."""
        moved = (t.to(device, non_blocking=True) for t in (self.boxes, self.labels, self.ignored))
        return Targets(*moved)

    def pin_memory(self) -> "Targets":
        """Copies in pinned memory, from which copies to a GPU are asynchronous."""
        return Targets(self.boxes.pin_memory(), self.labels.pin_memory(), self.ignored.pin_memory())

    def rows(self, images: slice) -> "Targets":
        """Some images of the batch; views, no copies."""
        return Targets(self.boxes[images], self.labels[images], self.ignored[images])


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first, in pixels of that image.

    boxes: float32 [K, 4], xyxy, pixels; scores: float32 [K], descending; labels: int64 [K], 1..C.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        _check_boxes(self.boxes, num_dims=1)
        num_boxes = self.boxes.shape[:1]
        _check_tensor("scores", self.scores, torch.float32, num_boxes)
        _check_tensor("labels", self.labels, torch.int64, num_boxes)

    @staticmethod
    def split(boxes: Tensor, scores: Tensor, labels: Tensor, num_detections: Tensor) -> list["Detections"]:
        """The detections of each image of a batch, without padding.

        Args:
            boxes: float32 [B, K, 4], xyxy, pixels of each image; scores: float32 [B, K]; labels: int64 [B,
                K].
            num_detections: int64 [B], number of valid rows per image.
        """
        rows = enumerate(num_detections.tolist())
        return [Detections(boxes[i, :n], scores[i, :n], labels[i, :n]) for i, n in rows]


def _check(boxes: Tensor, labels: Tensor, ignored: Tensor, num_dims: int) -> None:
    """Raise ValueError unless the dtypes are right and the shapes match each other."""
    _check_boxes(boxes, num_dims)
    _check_tensor("labels", labels, torch.int64, boxes.shape[:-1])
    _check_tensor("ignored", ignored, torch.bool, boxes.shape[:-1])


def _check_boxes(boxes: Tensor, num_dims: int) -> None:
    if boxes.ndim != num_dims + 1 or boxes.shape[-1] != 4 or boxes.dtype != torch.float32:
        form = "[B, M, 4]" if num_dims == 2 else "[M, 4]"
        raise ValueError(f"boxes are {boxes.dtype} {list(boxes.shape)}, not torch.float32 {form}")


def _check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, shape: torch.Size) -> None:
    if tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(
            f"{name} are {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)} to match the boxes"
        )
