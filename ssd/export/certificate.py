"""What an exported file says of its own birth, and the seal over all of it.

Metadata, beside that of `ssd.detector.describe`:
    certificate  digests of model.pt, data and params, figures, the network
    origin       git commit, digest of what dvc.lock says of the stages before the export, versions, machine:
                 what may differ between files that are the same
    golden       a small image, what the PyTorch model detects in it, how many of these detections a little
                 noise changes, and a digest of the file's own outputs

All but `origin` follow from the inputs of the export, so that the same inputs give the same bytes on the same
kind of machine. There is no date. `ssd.export.verify_onnx` reads and checks all of it.
"""

import base64
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoOperator
from torch import Tensor
from torch.nn import functional as F

from ssd.detector import Detector
from ssd.errors import UserError, first_line
from ssd.export.network import describe_network
from ssd.export.noise import noisy_outputs
from ssd.export.torchscript import METADATA, open_torchscript, record, with_records
from ssd.export.verify_onnx import (
    DIGEST_LENGTH,
    ONNX_SEAL,
    golden_image,
    match_golden,
    open_session,
    outputs_digest,
)
from ssd.files import write_bytes
from ssd.models.saved import sealed_zip
from ssd.structures import Detections

CERTIFICATE_FORMAT = "ssd-certificate-1"
TORCHSCRIPT_SEAL = b"ssd-torchscript-1 "
"""What stands before the digest at the end of a TorchScript file, in the comment of the zip file."""

GOLDEN_SIDE = 128
"""Longer side of the golden image at most, pixels: 49 kB."""

LIBRARIES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "numpy")
FIGURES = ("map", "map_interval", "map50", "map50_interval")


def make_certificate(
    detector: Detector,
    model_sha256: str,
    data_sha256: Mapping[str, str] | None = None,
    params_sha256: str | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The certificate, as JSON values; None is what is not known.

    Args:
        data_sha256: of the tensor files, by split; params_sha256: see `stages.export`; metrics: the content
            of metrics.json of this model. Figures are rounded to four places.
    """
    figures = None
    if metrics is not None:
        figures = {f"coco_{key}": _rounded(metrics["coco"].get(key)) for key in FIGURES}
        figures["operating_score"] = _rounded(metrics["operating_point"]["score"])
        figures["num_images"] = metrics["num_images"]
    return {
        "format": CERTIFICATE_FORMAT,
        "model_sha256": model_sha256,
        "data_sha256": None if data_sha256 is None else dict(data_sha256),
        "params_sha256": params_sha256,
        "metrics": figures,
        "network": describe_network(detector),
    }


def make_origin(commit: str | None, dirty: bool | None, dvc_lock_sha256: str | None = None) -> dict[str, Any]:
    """Where a file was exported; None is what is not known.

    Args:
        commit: of the code; dirty: whether code or params differ from it; dvc_lock_sha256: of what dvc.lock
            says of the stages that led to the model.
    """
    return {
        "commit": commit,
        "dirty": dirty,
        "dvc_lock_sha256": dvc_lock_sha256,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


@torch.inference_mode()
def make_golden(detector: Detector, images: Sequence[Tensor]) -> dict[str, Any]:
    """The image with the most detections, reduced to GOLDEN_SIDE, and these detections, as JSON values.

    `unsteady` is the largest number of them that the detector itself misses with a little noise, or has
    beside them: so many may be other ones by the rounding of another machine.

    Args:
        detector: on the CPU; images: uint8 RGB [3, H, W], at least one.
    """
    small = [_reduced(image) for image in images]
    found = [Detections.split(*detector(image[None]))[0] for image in small]
    best = max(range(len(small)), key=lambda index: len(found[index].scores))
    _, height, width = small[best].shape
    golden = {
        "height": height,
        "width": width,
        "pixels": base64.b64encode(small[best].numpy().tobytes()).decode(),
        "boxes": found[best].boxes.tolist(),
        "scores": found[best].scores.tolist(),
        "labels": found[best].labels.tolist(),
    }
    return {**golden, "unsteady": _num_unsteady(detector, small[best], golden)}


def _num_unsteady(detector: Detector, image: Tensor, golden: Mapping[str, Any]) -> int:
    """The largest number of detections that noise in the golden image takes away, or adds."""
    settings = detector.postprocessor.settings
    largest = 0
    for noisy in noisy_outputs(detector, image[None]):
        outputs = [output.numpy() for output in noisy]
        found = match_golden(golden, outputs, settings.score_threshold, settings.max_detections)
        largest = max(largest, found.num_missed, found.num_others)
    return largest


def certify(
    path: Path, certificate: Mapping[str, Any], origin: Mapping[str, Any], golden: Mapping[str, Any]
) -> None:
    """Run a file of `to_onnx` or `to_torchscript` on the golden image, and write all of it into the file.

    Raises:
        UserError: ONNX Runtime does not have an operator of the file in that version.
    """
    content = path.read_bytes()
    onnx_file = path.suffix == ".onnx"
    try:
        run = open_session(content)[0] if onnx_file else torchscript_run(path)
    except NoOperator as error:
        raise UserError(f"{path.name}: {first_line(error)}; choose a lower opset") from None
    measured = {**golden, "outputs_sha256": outputs_digest(run(golden_image(golden)))}
    statements = {"certificate": dict(certificate), "origin": dict(origin), "golden": measured}
    write_bytes(path, _sealed_onnx(content, statements) if onnx_file else _sealed_script(content, statements))


def torchscript_run(path: Path) -> Any:
    """A TorchScript file as `ssd.export.verify_onnx.Run`."""
    run, _ = open_torchscript(path)
    return lambda images: [output.numpy() for output in run(torch.from_numpy(images.copy()))]


def without_origin(path: Path) -> bytes:
    """The content of an exported file but for its origin and its seal."""
    content = path.read_bytes()
    if path.suffix != ".onnx":
        metadata = json.loads(record(content, METADATA))
        metadata.pop("origin", None)
        return with_records(content, {METADATA: json.dumps(metadata).encode()})
    model = onnx.load_model_from_string(content)
    kept = [entry for entry in model.metadata_props if entry.key not in ("origin", "seal")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    stripped: bytes = model.SerializeToString(deterministic=True)
    return stripped


def _sealed_onnx(content: bytes, statements: Mapping[str, Any]) -> bytes:
    """Properties of a message may be appended to its bytes."""
    more = onnx.ModelProto()
    onnx.helper.set_model_props(more, {key: json.dumps(value) for key, value in statements.items()})
    body = content + more.SerializeToString(deterministic=True)
    seal = onnx.ModelProto()
    onnx.helper.set_model_props(seal, {"seal": "0" * DIGEST_LENGTH})
    assert seal.SerializeToString() == ONNX_SEAL + b"0" * DIGEST_LENGTH, "where the digest is looked for"
    marked: bytes = body + ONNX_SEAL
    return marked + hashlib.sha256(marked).hexdigest().encode()


def _sealed_script(content: bytes, statements: Mapping[str, Any]) -> bytes:
    metadata = json.loads(record(content, METADATA))
    return sealed_zip(
        with_records(content, {METADATA: json.dumps({**metadata, **statements}).encode()}), TORCHSCRIPT_SEAL
    )


def _reduced(image: Tensor) -> Tensor:
    """uint8 [3, H, W], its longer side at most GOLDEN_SIDE."""
    longer = max(image.shape[1:])
    if longer <= GOLDEN_SIDE:
        return image
    size = [max(1, side * GOLDEN_SIDE // longer) for side in image.shape[1:]]
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
