"""A detector from a file of any of the three kinds: model.pt, ONNX, TorchScript; all detect the same.

None of them is unpickled. Exported files hold their thresholds; model.pt is given those of `SETTINGS`.
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ssd.detector import DETECTOR_FORMAT, Detector, Outputs, describe
from ssd.errors import UserError, first_line
from ssd.export.onnx import open_onnx
from ssd.export.torchscript import METADATA, open_torchscript
from ssd.hardware import choose_hardware
from ssd.models.saved import load_model
from ssd.postprocess import PostProcessSettings
from ssd.structures import Detections

Kind = Literal["model.pt", "onnx", "torchscript"]
Run = TypeVar("Run")

SETTINGS = PostProcessSettings(score_threshold=0.05, nms_iou=0.45, max_detections=100)
"""Of a model.pt: the defaults of `export` in params.yaml."""


@dataclass(frozen=True)
class DetectorFile:
    """A detector that was read from a file.

    run: uint8 RGB [N, 3, H, W] on the CPU to `Detector.forward`'s outputs, on the CPU; metadata: that of
    `ssd.detector.describe`, and whatever else the file says of itself.
    """

    path: Path
    kind: Kind
    run: Callable[[Tensor], Outputs]
    metadata: dict[str, Any]

    @property
    def class_names(self) -> list[str]:
        """Label i is class_names[i - 1]; 0 is background."""
        names: list[str] = self.metadata["class_names"]
        return names

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """The detections of images, uint8 RGB [3, H, W], of any sizes; those of one size are one batch."""
        by_size: dict[torch.Size, list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(index)
        found: dict[int, Detections] = {}
        for indices in by_size.values():
            outputs = self.run(torch.stack([images[index] for index in indices]))
            found.update(zip(indices, Detections.split(*outputs), strict=True))
        return [found[index] for index in range(len(images))]


def open_detector(
    path: str | Path, device: str = "cpu", settings: PostProcessSettings = SETTINGS
) -> DetectorFile:
    """Open a detector; the suffix .onnx says that it is an ONNX file, else the content which kind it is.

    Args:
        device: auto, cpu or cuda; of a model.pt. Exported files run on the CPU.
        settings: thresholds of a model.pt.

    Raises:
        UserError: there is no such file, it is damaged, or it is none of the three kinds.
    """
    path = Path(path)
    match kind_of(path):
        case "model.pt":
            return _open_model(path, device, settings)
        case "onnx":
            return DetectorFile(path, "onnx", *read_exported(path, open_onnx))
        case "torchscript":
            return DetectorFile(path, "torchscript", *read_exported(path, open_torchscript))


def kind_of(path: Path) -> Kind:
    """What kind of detector a file holds.

    Raises:
        UserError: there is no such file, it is damaged, or it is none.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; needed is a model.pt or an exported file")
    if path.suffix == ".onnx":
        return "onnx"
    if zipfile.is_zipfile(path):
        names = _names_in_zip(path)
        return "torchscript" if {"constants.pkl", METADATA} <= names else "model.pt"
    raise UserError(f"{path}: neither a model.pt of this project nor an exported detector, or cut short")


def _open_model(path: Path, device: str, settings: PostProcessSettings) -> DetectorFile:
    model, class_names = load_model(path)
    place = choose_hardware(device, "fp32", "--device").device
    detector = Detector(model, settings).to(place)

    @torch.inference_mode()
    def run(images: Tensor) -> Outputs:
        boxes, scores, labels, num_detections = detector(images.to(place))
        return boxes.cpu(), scores.cpu(), labels.cpu(), num_detections.cpu()

    return DetectorFile(path, "model.pt", run, describe(detector, class_names))


def _names_in_zip(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {Path(name).name for name in archive.namelist()}
    except Exception as error:  # noqa: BLE001 (of a damaged file: zipfile, struct and codecs raise their own)
        reason = first_line(error)
        raise UserError(f"{path}: damaged ({reason}); copy it again from where it was made") from None


def read_exported(
    path: Path, reader: Callable[[Path], tuple[Run, dict[str, Any]]]
) -> tuple[Run, dict[str, Any]]:
    """How an exported file runs, and its metadata, by a `reader` of its kind.

    Raises:
        UserError: the file is damaged, or another program's.
    """
    try:
        run, metadata = reader(path)
    except Exception as error:  # noqa: BLE001 (onnxruntime, torch and json raise a dozen types)
        raise UserError(f"{path}: does not load as a detector: {first_line(error)}") from None
    if metadata.get("format") != DETECTOR_FORMAT:
        found = metadata.get("format", "none")
        raise UserError(f"{path}: not exported by this project (format {found}, needed {DETECTOR_FORMAT})")
    return run, metadata
