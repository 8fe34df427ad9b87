"""NMS and RoI align as opaque nodes, which the ONNX exporter translates to standard operators.

It cannot trace what they do in PyTorch: data-dependent loops and shapes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import onnx
import onnxscript
import torch
from torch import Tensor

from ssd.models.faster_rcnn.config import STRIDES
from ssd.models.faster_rcnn.roi_align import GRID, SAMPLES, roi_align_by_level
from ssd.models.kernels import Kernels
from ssd.postprocess import nms_mask

# Only operators in which opsets 18 to 23 differ by data types alone. ONNX Runtime has no RoiAlign newer than
# that of opset 21. Any: onnxscript's type hints omit that it accepts Python numbers and lists.
op: Any = onnxscript.opset18


@torch.library.custom_op("ssd::nms_mask", mutates_args=())
def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    mask: Tensor = nms_mask(boxes, scores, iou_threshold, score_threshold)
    return mask


@_nms.register_fake
def _nms_shape(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _nms_in_onnx(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
    """`nms_mask`: NonMaxSuppression takes every row as an image of one class.

    It returns triples (row, class, column) of the kept boxes, which are scattered into a mask.
    """
    shape = op.Shape(scores)
    kept = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, [1]),
        op.Gather(shape, [1]),
        op.Constant(value_float=iou_threshold),
        op.Constant(value_float=score_threshold),
    )
    rows_and_columns = op.Gather(kept, [0, 2], axis=1)
    nothing = op.ConstantOfShape(shape, value=_bool(False))
    true = op.ConstantOfShape(op.Shape(kept, start=0, end=1), value=_bool(True))
    return op.ScatterND(nothing, rows_and_columns, true)


def _bool(value: bool) -> Any:
    return onnx.helper.make_tensor("value", onnx.TensorProto.BOOL, [1], [value])


@torch.library.custom_op("ssd::roi_align", mutates_args=())
def _roi_align(maps: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
    return roi_align_by_level(maps, rois, levels)


@_roi_align.register_fake
def _roi_align_shape(maps: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
    return maps[0].new_empty(rois.shape[0], maps[0].shape[1], GRID, GRID)


def _roi_align_in_onnx(maps: Sequence[Any], rois: Any, levels: Any) -> Any:
    """`roi_align_by_level`: the features of each level are scattered into those of all."""
    grid = op.Constant(value_ints=[GRID, GRID])
    shape = op.Concat(op.Shape(levels), op.Shape(maps[0], start=1, end=2), grid, axis=0)
    features = op.ConstantOfShape(shape)
    images = op.Cast(op.Squeeze(op.Gather(rois, [0], axis=1), [1]), to=onnx.TensorProto.INT64)
    boxes = op.Gather(rois, [1, 2, 3, 4], axis=1)
    for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        own = op.Transpose(op.NonZero(op.Equal(levels, [level])), perm=[1, 0])
        rows = op.Squeeze(own, [1])
        found = op.RoiAlign(
            x,
            op.Gather(boxes, rows),
            op.Gather(images, rows),
            coordinate_transformation_mode="output_half_pixel",
            mode="avg",
            output_height=GRID,
            output_width=GRID,
            sampling_ratio=SAMPLES,
            spatial_scale=1 / stride,
        )
        features = op.ScatterND(features, own, found)
    return features


def _sort_in_onnx(values: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
    """`Tensor.sort`, for which the exporter has no translation if it is stable; TopK always is."""
    length = op.Gather(op.Shape(values), [dim])
    return op.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


OPAQUE = Kernels(_nms, _roi_align)
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.ssd.nms_mask.default: _nms_in_onnx,
    torch.ops.ssd.roi_align.default: _roi_align_in_onnx,
    torch.ops.aten.sort.stable: _sort_in_onnx,
}
