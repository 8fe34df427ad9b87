"""What a detector says about one image: the type that the post-processor, the metrics and the pictures share.

Its counterpart, what is really there, is `ssd.loading.tensor_file.Objects`.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """The detections of one image, best first.

    boxes: float32 [k, 4], xyxy in pixels of that image, half-open; scores: float32 [k], descending;
    labels: int64 [k], 1..C.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
