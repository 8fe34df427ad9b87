"""Operations of a detector that export formats replace by what they have."""

from dataclasses import dataclass

from ssd.models.faster_rcnn.roi_align import RoIAlign, roi_align_in_pytorch
from ssd.postprocess import NMS, nms_mask


@dataclass(frozen=True)
class Kernels:
    """The operations, by default those of PyTorch.

    nms: in place of `ssd.postprocess.nms_mask`; roi_align: in place of
    `ssd.models.faster_rcnn.roi_align.roi_align_in_pytorch`.
    """

    nms: NMS = nms_mask
    roi_align: RoIAlign = roi_align_in_pytorch


IN_PYTORCH = Kernels()
