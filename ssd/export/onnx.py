"""One ONNX file of standard operators: resize, network, decoding and NMS in one graph."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxscript
import torch
from torch import Tensor

from ssd.detector import Detector, Outputs, describe
from ssd.export.verify_onnx import OUTPUTS, parsed
from ssd.postprocess import nms_mask

# NMS uses only operators in which opsets 18 to 23 differ by data types alone. Any: onnxscript's type hints
# omit that it accepts Python numbers and lists.
op: Any = onnxscript.opset18

INPUT = "images"


def to_onnx(detector: Detector, class_names: Sequence[str], opset: int) -> bytes:
    """Export a detector, in eval mode on the CPU, to the bytes of an ONNX file.

    Batch size, height and width are dynamic. The metadata properties are those of `describe`; each that is
    not a string is JSON. The same detector gives the same bytes.

    Args:
        detector: its weights are copied into the file.
        class_names: without background.
        opset: version of the operator set, 18 to 23.
    """
    portable = Detector(detector.model, detector.postprocessor.settings, nms=_nms)
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    # All sizes differ from each other and from the input size, so that no two dimensions are confused.
    example = torch.zeros(2, 3, detector.side + 3, detector.side + 5, dtype=torch.uint8)
    with torch.no_grad():
        program = torch.onnx.export(
            portable,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=OUTPUTS,
            dynamic_shapes=(dims,),
            custom_translation_table={torch.ops.ssd.nms_mask.default: _nms_in_onnx},
            external_data=False,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter always returns a program"
    model = program.model_proto
    _forget_origin(model.graph)
    metadata = describe(detector, class_names)
    properties = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    onnx.helper.set_model_props(model, properties)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def open_onnx(path: str | Path) -> tuple[Callable[[Tensor], Outputs], dict[str, Any]]:
    """Load a file of `to_onnx` in ONNX Runtime: a function that runs it on the CPU, and its metadata."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Outputs:
        boxes, scores, labels, num_detections = map(
            torch.from_numpy, session.run(OUTPUTS, {INPUT: images.numpy()})
        )
        return boxes, scores, labels, num_detections

    properties = session.get_modelmeta().custom_metadata_map
    return run, parsed(properties)


@torch.library.custom_op("ssd::nms_mask", mutates_args=())
def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """`nms_mask` as one opaque node: the exporter cannot trace its data-dependent loop."""
    mask: Tensor = nms_mask(boxes, scores, iou_threshold, score_threshold)
    return mask


@_nms.register_fake
def _nms_shape(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _nms_in_onnx(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
    """`nms_mask` in standard operators: NonMaxSuppression takes every row as an image of one class.

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


def _forget_origin(graph: Any) -> None:
    """Remove the exporter's debug metadata: source lines and paths of the exporting machine."""
    for part in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for item in part:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    graph.ClearField("metadata_props")
