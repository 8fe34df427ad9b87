"""Export to one TorchScript file that needs torch alone: neither torchvision nor this package."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd.detector import Detector, Outputs, describe

METADATA = "metadata.json"
"""Name of the extra file, inside the TorchScript file, that holds the metadata."""


def to_torchscript(detector: Detector, class_names: Sequence[str]) -> bytes:
    """Trace a detector, in eval mode on the CPU, to the bytes of a TorchScript file.

    Sizes are read from the tensors in the traced graph, and NMS is compiled (see
    `ssd.postprocess.nms_mask`), so that N, H and W stay dynamic. A warning of the tracer that a value
    became a constant is an error. The same detector gives the same bytes, in a fresh process from the same
    folder.
    """
    # All sizes differ from each other and from the input size, so that no two dimensions are confused.
    example = torch.zeros(2, 3, detector.side + 3, detector.side + 5, dtype=torch.uint8)
    buffer = io.BytesIO()
    with torch.no_grad(), _deprecation_known():
        warnings.filterwarnings("error", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        # No check on the same input again: the export stage compares results on many others.
        traced = torch.jit.trace(detector, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        metadata = json.dumps(describe(detector, class_names))
        torch.jit.save(traced, buffer, _extra_files={METADATA: metadata})
    return buffer.getvalue()


def open_torchscript(path: str | Path) -> tuple[Callable[[Tensor], Outputs], dict[str, Any]]:
    """Load a file of `to_torchscript`: a function that runs it on the CPU, and its metadata."""
    extra_files = {METADATA: ""}
    with _deprecation_known():
        module = torch.jit.load(path, "cpu", extra_files)  # type: ignore[no-untyped-call]

    def run(images: Tensor) -> Outputs:
        with torch.inference_mode():
            outputs: Outputs = module(images)
            return outputs

    return run, json.loads(extra_files[METADATA])


@contextmanager
def _deprecation_known() -> Iterator[None]:
    """Suppress torch's warning at every call that TorchScript is deprecated; it is still deployed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")
        yield
