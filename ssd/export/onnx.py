"""One ONNX file of standard operators: resize, network, decoding, NMS and RoI align in one graph."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from ssd.detector import Detector, Outputs, describe
from ssd.export.onnx_kernels import OPAQUE, TRANSLATIONS
from ssd.export.verify_onnx import OUTPUTS, parsed

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
    portable = Detector(detector.model, detector.postprocessor.settings, OPAQUE)
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
            custom_translation_table=TRANSLATIONS,
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


def _forget_origin(graph: Any) -> None:
    """Remove the exporter's debug metadata: source lines and paths of the exporting machine."""
    for part in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for item in part:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    graph.ClearField("metadata_props")
