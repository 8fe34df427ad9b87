"""Export to one TorchScript file that needs torch alone: neither torchvision nor this package."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssd.detector import Detector, Outputs, describe

METADATA = "metadata.json"
"""Name of the extra file, inside the TorchScript file, that holds the metadata."""

DEBUG_SUFFIX = ".debug_pkl"
"""Of the files, inside the TorchScript file, with lines and paths of the exporting machine's source files."""

VERSIONS = ("version", ".data/version")
"""Where the version of the file's format is, which its newest operator decides: the second from 6 on, as of
GELU."""


class Deployed(nn.Module):
    """A detector for callers whom nobody checks: it does with every input what the ONNX file does.

    Inputs that are not uint8 [N, 3, H, W] raise an error, and a batch of no image gives empty results.

    Args:
        detector: traced with it.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Outputs:
        """As `Detector.forward`, with any N."""
        images = checked_images(images)
        num_images = images.shape[0]
        boxes, scores, labels, num_detections = self.detector(at_least_one(images))
        return boxes[:num_images], scores[:num_images], labels[:num_images], num_detections[:num_images]


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def checked_images(images: Tensor) -> Tensor:
    """The images, if they are uint8 [N, 3, H, W].

    Raises:
        ValueError: they are not.
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise ValueError("images must be uint8 RGB [N, 3, H, W]")
    return images


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def at_least_one(images: Tensor) -> Tensor:
    """The images, uint8 [N, 3, H, W], or a black one if there are none: not every network takes no image."""
    if images.shape[0] == 0:
        return images.new_zeros([1, 3, images.shape[2], images.shape[3]])
    return images


def to_torchscript(detector: Detector, class_names: Sequence[str]) -> bytes:
    """Trace a detector, in eval mode on the CPU, to the bytes of a TorchScript file.

    Sizes are read from the tensors in the traced graph, and NMS and RoI align are compiled (see
    `ssd.models.kernels.IN_PYTORCH`), so that N, H and W stay dynamic. A warning of the tracer that a value
    became a constant is an error. The same detector gives the same bytes in every fresh process, wherever
    this package and torch are installed.
    """
    # All sizes differ from each other and from the input size, so that no two dimensions are confused.
    example = torch.zeros(2, 3, detector.side + 3, detector.side + 5, dtype=torch.uint8)
    buffer = io.BytesIO()
    with torch.no_grad(), _deprecation_known():
        warnings.filterwarnings("error", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        # No check on the same input again: the export stage compares results on many others.
        deployed = Deployed(detector).eval()
        traced = torch.jit.trace(deployed, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        metadata = json.dumps(describe(detector, class_names))
        torch.jit.save(traced, buffer, _extra_files={METADATA: metadata})
    return with_records(buffer.getvalue(), {})


def record(content: bytes, name: str) -> bytes:
    """An extra file inside a TorchScript file."""
    found: bytes = torch._C.PyTorchFileReader(io.BytesIO(content)).get_record(f"extra/{name}")
    return found


def with_records(content: bytes, extra_files: Mapping[str, bytes]) -> bytes:
    """A TorchScript file with these extra files in place of its own, and without debug files."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    replaced = {f"extra/{name}": file for name, file in extra_files.items()}
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    records = reader.get_all_records()
    (version,) = (name for name in VERSIONS if name in records)
    writer.set_min_version(int(reader.get_record(version)))
    for name in records:
        # The writer adds the first ones itself.
        if name not in (*VERSIONS, ".data/serialization_id") and not name.endswith(DEBUG_SUFFIX):
            file = replaced.get(name) or reader.get_record(name)
            writer.write_record(name, file, len(file))
    writer.write_end_of_file()
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
