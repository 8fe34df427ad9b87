"""Comparison of exported files with the PyTorch detector, on real images and on edge cases."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ssd.detector import Detector, Outputs, describe, scale_boxes
from ssd.errors import UserError
from ssd.export.match_detections import Agreement, Reference, compare_detections
from ssd.export.noise import noisy_outputs
from ssd.export.onnx import open_onnx
from ssd.export.torchscript import open_torchscript
from ssd.structures import Detections

Detect = Callable[[Tensor], Outputs]

NUM_STRETCHED = 3
NUM_WARM_UP = 3


class DisagreementError(UserError):
    """An exported file does other than its detector in PyTorch; finding: that, without a remedy."""

    def __init__(self, finding: str, remedy: str) -> None:
        super().__init__(f"{finding}; {remedy}")
        self.finding = finding


@dataclass(frozen=True)
class Case:
    """A batch, and the results of the PyTorch detector for it.

    images: uint8 [N, 3, H, W]; outputs: the detector's; references: one per image.
    """

    images: Tensor
    outputs: Outputs
    references: list[Reference]


@torch.inference_mode()
def compare_files(
    detector: Detector,
    class_names: Sequence[str],
    files: Sequence[Path],
    images: Sequence[Tensor],
    tolerance: float,
) -> dict[str, Any]:
    """Compare exported files, on the CPU, with the detector that they were exported from.

    Compared: metadata, the shape and the order of the outputs, and the detections (see
    `ssd.export.match_detections`), on each image alone, on batches (see `_batches`) and on none. On an image
    on which PyTorch disagrees with itself, a file may disagree with it as much (see `_explained_by_noise`).

    Args:
        detector: on the CPU.
        class_names: without background.
        files: `*.onnx` and TorchScript files.
        images: uint8 [3, H, W], RGB, at least one, of any sizes.
        tolerance: largest difference of scores, and of boxes as a fraction of the longer image side.

    Returns:
        The report: per file the largest differences, the numbers of compared items, and the median latency
        per image in milliseconds; also the latency of the detector in PyTorch.

    Raises:
        DisagreementError: the results of a file differ.
    """
    cases = [_reference(detector, batch) for batch in _batches(images, detector.side)]
    cases.append(_no_image(cases[0]))
    report: dict[str, Any] = {
        "tolerance": tolerance,
        "num_images": sum(len(case.references) for case in cases),
        "num_detections": sum(len(r.found.labels) for case in cases for r in case.references),
        "num_threads": torch.get_num_threads(),
        "pytorch": {"latency_ms": _latency_ms(detector, images)},
    }
    for path in files:
        run, metadata = open_onnx(path) if path.suffix == ".onnx" else open_torchscript(path)
        own = describe(detector, class_names)
        if {key: metadata.get(key) for key in own} != own:
            raise DisagreementError(f"{path.name}: not the metadata of this model", "export it again")
        found = [a for case in cases for a in _compare_case(path, run, case, detector, tolerance)]
        report[path.name] = {
            "bytes": path.stat().st_size,
            "largest_box_difference": max(a.box_difference for a in found),
            "largest_score_difference": max(a.score_difference for a in found),
            "num_matched": sum(a.num_matched for a in found),
            "num_borderline": sum(a.num_borderline for a in found),
            "latency_ms": _latency_ms(run, images),
        }
    return report


def agreement_lines(report: dict[str, Any], names: Sequence[str]) -> list[str]:
    """A line for each file: its size, how well it agrees, its speed.

    Args:
        report: of `compare_files`; names: of the files.
    """
    lines = []
    for name in names:
        file = report[name]
        agreement = (
            f"  scores within {file['largest_score_difference']:.1e}"
            f"  boxes within {file['largest_box_difference']:.1e} of the longer side"
        )
        lines.append(
            f"{name:20s} {file['bytes'] / 1e6:6.1f} MB{agreement if report['num_detections'] else ''}"
            f"  {file['latency_ms']:.1f} ms per image (PyTorch {report['pytorch']['latency_ms']:.1f} ms)"
        )
    return lines


def _batches(images: Sequence[Tensor], side: int) -> Iterator[Tensor]:
    """Each image alone; a few stretched to other shapes, as batches; and images of one colour."""
    for image in images:
        yield image[None]
    few = [*images[:NUM_STRETCHED], images[0].flip(-1)]
    portrait, landscape, tiny = (2 * side + 1, side // 2 + 3), (side - 1, 3 * side + 2), (2, 3)
    for size in ((side, side), portrait, landscape, tiny):
        yield torch.cat([F.interpolate(x[None], size, mode="bilinear", antialias=True) for x in few])
    for value in (0, 127, 255):
        yield torch.full((1, 3, side + 1, side), value, dtype=torch.uint8)


def _reference(detector: Detector, images: Tensor) -> Case:
    height, width = images.shape[2:]
    outputs = detector(images)
    candidates = detector.postprocessor.candidates(*detector.raw_outputs(images))
    boxes = scale_boxes(candidates.boxes(), height, width)
    references = [
        Reference(detections, boxes[i], candidates.scores[i], max(height, width))
        for i, detections in enumerate(Detections.split(*outputs))
    ]
    return Case(images, outputs, references)


def _no_image(case: Case) -> Case:
    """A batch of no image, and what a file has to make of it."""
    boxes, scores, labels, num_detections = case.outputs
    return Case(case.images[:0], (boxes[:0], scores[:0], labels[:0], num_detections[:0]), [])


def _compare_case(
    path: Path, run: Detect, case: Case, detector: Detector, tolerance: float
) -> Iterator[Agreement]:
    """One agreement per image.

    Raises:
        DisagreementError: the outputs do not agree.
    """
    num_images, _, height, width = case.images.shape
    where = f"{path.name}, image of {width}x{height} pixels in a batch of {num_images}"
    outputs = run(case.images)
    malformed = _malformed(outputs, case.outputs, detector.model.num_classes)
    if malformed:
        raise DisagreementError(
            f"{where}: {malformed}", "the file is not an export of this detector, export it again"
        )
    found = zip(case.images, case.references, Detections.split(*outputs), strict=True)
    for image, reference, other in found:
        agreement = compare_detections(reference, other, detector.postprocessor.settings, tolerance)
        if agreement.problem and _explained_by_noise(agreement, detector, image, reference, tolerance):
            agreement = replace(agreement, problem="")
        if agreement.problem:
            raise DisagreementError(
                f"{where}, disagrees with PyTorch: {agreement.problem}",
                f"raise export.tolerance ({tolerance:g}) only if that is rounding",
            )
        yield agreement


def _explained_by_noise(
    agreement: Agreement, detector: Detector, image: Tensor, reference: Reference, tolerance: float
) -> bool:
    """Whether the PyTorch detector, too, finds something else in an image with a little noise.

    But a file that finds less than half of what is found with any noise is wrong for another reason.

    Args:
        agreement: of a file that disagrees; image: uint8 [3, H, W]; reference: of it.
    """
    settings = detector.postprocessor.settings
    found = [Detections.split(*outputs)[0] for outputs in noisy_outputs(detector, image[None])]
    noisy = [compare_detections(reference, other, settings, tolerance) for other in found]
    fewest = min(other.num_matched for other in noisy)
    return any(other.problem for other in noisy) and 2 * agreement.num_matched >= fewest


def _malformed(outputs: Outputs, expected: Outputs, num_classes: int) -> str:
    """The error in shapes, dtypes, padding, labels or order of outputs; "" if there is none."""
    forms = [[(x.dtype, tuple(x.shape)) for x in group] for group in (outputs, expected)]
    if forms[0] != forms[1]:
        return f"outputs are {forms[0]}, not {forms[1]}"
    boxes, scores, labels, num_detections = outputs
    used = torch.arange(scores.shape[1]) < num_detections[:, None]
    if boxes[~used].any() or scores[~used].any() or labels[~used].any():
        return "rows past num_detections are not 0"
    if ((labels[used] < 1) | (labels[used] >= num_classes)).any():
        return f"labels are outside 1..{num_classes - 1}"
    if (scores.diff(dim=1) > 0).any():
        return "scores are not in descending order"
    return ""


def _latency_ms(run: Detect, images: Sequence[Tensor]) -> float:
    """Median latency per image, milliseconds, over all images three times, after a few warm-up runs."""
    times = []
    for _ in range(NUM_WARM_UP):
        run(images[0][None])
    for image in [*images, *images, *images]:
        start = time.perf_counter()
        run(image[None])
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
