"""Checks an exported ONNX file: is it what was written, and does this machine detect the same with it?

    python verify_onnx.py ssd.onnx [--json]

needs numpy and onnxruntime alone, not this package. A file says of itself:
    seal         its last 64 bytes: the SHA-256, in hex digits, of all bytes before them. One changed weight
                 or letter breaks it. It is no signature: who changes a file can seal it again.
    certificate  what the detector was made of: digests of model.pt, data and params, figures
    origin       git commit, digest of dvc.lock, versions of libraries and machine of the export
    golden       a small image, the PyTorch model's detections in it, how many of them rounding may change,
                 and a digest of the file's own outputs
"""

import argparse
import base64
import hashlib
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ONNX_SEAL = b"\x72\x48\x0a\x04seal\x12\x40"
"""What stands before the digest at the end: the property "seal" of 64 bytes, in protobuf's encoding.

The fields of a message may stand in any order, so it is the last one, whatever comes before it."""

DIGEST_LENGTH = 64  # hex digits of SHA-256

TOLERANCE = 0.001
"""Largest difference of scores, and of boxes divided by the longer image side, as `export.tolerance`."""

JSON_PROPERTIES = {
    *("class_names", "input_size", "score_threshold", "nms_iou", "max_detections"),
    *("certificate", "origin", "golden"),
}
"""Other programs may add properties of their own, which need not be JSON."""

OUTPUTS = ["boxes", "scores", "labels", "num_detections"]

Run = Callable[[np.ndarray], Sequence[np.ndarray]]
"""uint8 RGB [N, 3, H, W] to OUTPUTS: float32 [N, K, 4], float32 [N, K], int64 [N, K], int64 [N]."""


@dataclass(frozen=True)
class GoldenResult:
    """How the detections in the golden image compare with those that the file carries.

    num_detections: it carries; num_missed: of them; num_others: that it does not carry; identical: the file's
    outputs have the very bits that they had where it was exported; score_difference, box_difference: largest,
    from the PyTorch model's, boxes as a fraction of the longer side; problem: what rounding does not explain,
    "" if nothing is.
    """

    num_detections: int
    num_missed: int
    num_others: int
    identical: bool
    score_difference: float
    box_difference: float
    problem: str


@dataclass(frozen=True)
class Report:
    """What became of a file.

    sealed: its digest is right; golden: None if it could not be run; metadata: what it says of itself;
    problem: why it is not what was exported, or detects otherwise, "" if all is well.
    """

    path: Path
    sealed: bool
    golden: GoldenResult | None
    metadata: dict[str, Any]
    problem: str


def is_sealed(content: bytes, mark: bytes) -> bool:
    """Whether a file ends with `mark` and the SHA-256 of all that comes before the digest."""
    body, digest = memoryview(content)[:-DIGEST_LENGTH], content[-DIGEST_LENGTH:]
    return body[-len(mark) :] == mark and hashlib.sha256(body).hexdigest().encode() == digest


def verify(
    content: bytes, mark: bytes, path: Path, opened: Callable[[], tuple[Run, dict[str, Any]]]
) -> Report:
    """Check the seal of a file, and run its golden image.

    Args:
        content: of the file; mark: what stands before its digest.
        opened: opens the file: how it runs, and its metadata. Not called for a file without a seal: what is
            cut short need not be parsed.
    """
    if content[:-DIGEST_LENGTH][-len(mark) :] != mark:
        return Report(
            path, False, None, {}, "no seal at its end: cut short, or exported without a certificate"
        )
    sealed = is_sealed(content, mark)
    broken = "" if sealed else "changed since it was exported: its content does not match its SHA-256"
    try:
        run, metadata = opened()
        golden = compare(metadata["golden"], run, metadata["score_threshold"], metadata["max_detections"])
    except Exception as error:  # noqa: BLE001 (a damaged file: onnxruntime, torch and json raise a dozen types)
        reason = " ".join(str(error).split())[:200]
        return Report(path, sealed, None, {}, "; ".join(filter(None, [broken, f"does not run: {reason}"])))
    return Report(path, sealed, golden, metadata, "; ".join(filter(None, [broken, golden.problem])))


def verify_onnx(path: Path) -> Report:
    """Check an ONNX file; OSError where it cannot be read."""
    content = path.read_bytes()
    return verify(content, ONNX_SEAL, path, lambda: open_session(content))


def open_session(content: bytes, num_threads: int = 1) -> tuple[Run, dict[str, Any]]:
    """An ONNX file in onnxruntime on the CPU, and its metadata.

    On one thread additions have the same order, whatever the number of cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 4  # a damaged file is told in one line
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    return lambda images: session.run(OUTPUTS, {"images": images}), parsed(properties)


def parsed(properties: Mapping[str, str]) -> dict[str, Any]:
    """Metadata properties: of those that an export writes, most are JSON; all others are plain strings."""
    return {key: json.loads(text) if key in JSON_PROPERTIES else text for key, text in properties.items()}


def outputs_digest(outputs: Sequence[np.ndarray]) -> str:
    """SHA-256 of OUTPUTS, bit by bit (little-endian)."""
    digest = hashlib.sha256()
    for array in outputs:
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def golden_image(golden: Mapping[str, Any]) -> np.ndarray:
    """The golden image as a batch: uint8 RGB [1, 3, H, W]."""
    pixels = np.frombuffer(base64.b64decode(golden["pixels"]), np.uint8)
    return pixels.reshape(1, 3, golden["height"], golden["width"])


def compare(golden: Mapping[str, Any], run: Run, score_threshold: float, max_detections: int) -> GoldenResult:
    """Run the golden image, and match what is found with what the file carries.

    As many as the file carries as unsteady may be missed, and as many may be others.
    """
    outputs = run(golden_image(golden))
    found = match_golden(golden, outputs, score_threshold, max_detections)
    problem = ""
    if max(found.num_missed, found.num_others) > golden.get("unsteady", 0):  # older files do not say
        problem = (
            f"other detections in the golden image: of {len(golden['scores'])} it misses {found.num_missed}, "
            f"and has {found.num_others} others (scores and boxes may differ by {TOLERANCE:g})"
        )
    return GoldenResult(
        num_detections=len(golden["scores"]),
        identical=outputs_digest(outputs) == golden["outputs_sha256"],
        problem=problem,
        **found._asdict(),
    )


class Matched(NamedTuple):
    """How many detections have no partner, and by how much those differ that have one; see GoldenResult."""

    num_missed: int
    num_others: int
    score_difference: float
    box_difference: float


def match_golden(
    golden: Mapping[str, Any], outputs: Sequence[np.ndarray], score_threshold: float, max_detections: int
) -> Matched:
    """Match OUTPUTS for the golden image with the detections that it comes with.

    Pairs have the same label, and differ by at most TOLERANCE. What has no partner counts, unless its score
    is that close to the threshold, or to the lowest that found a place among `max_detections`.
    """
    boxes, scores, labels, num_found = (array[0] for array in outputs)
    wanted = np.array(golden["scores"], np.float32)
    score_differences = np.abs(wanted[:, None] - scores[:num_found])
    box_differences = np.abs(np.array(golden["boxes"], np.float32).reshape(-1, 1, 4) - boxes[:num_found]).max(
        -1
    ) / max(golden["height"], golden["width"])
    distances = np.maximum(score_differences, box_differences)
    distances[np.array(golden["labels"], np.int64)[:, None] != labels[:num_found]] = np.inf
    pairs = closest_pairs(distances)
    rows, columns = [row for row, _ in pairs], [column for _, column in pairs]

    # Rounding moves a score over the threshold, or the last one out of the K rows.
    lowest = [s.min() for s in (wanted, scores[:num_found]) if len(s) == max_detections]
    limit = max([score_threshold, *lowest])
    missed = [row for row in range(len(wanted)) if row not in rows and wanted[row] > limit + TOLERANCE]
    others = [c for c in range(num_found) if c not in columns and scores[c] > limit + TOLERANCE]
    return Matched(
        len(missed),
        len(others),
        float(score_differences[rows, columns].max(initial=0)),
        float(box_differences[rows, columns].max(initial=0)),
    )


def closest_pairs(distances: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns whose distance is at most TOLERANCE, closest first, each at most once."""
    pairs: list[tuple[int, int]] = []
    rows, columns = set[int](), set[int]()
    close = np.argwhere(distances <= TOLERANCE)
    for row, column in close[distances[tuple(close.T)].argsort(kind="stable")].tolist():
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((row, column))
    return pairs


def lines(report: Report) -> list[str]:
    """A report in words: what the file says of itself, then what was found."""
    said = []
    for part in ("certificate", "origin"):
        said += [f"{name:22s} {in_words(value)}" for name, value in report.metadata.get(part, {}).items()]
    said.append(f"{'content':22s} {'as it was written' if report.sealed else 'NOT as it was written'}")
    if golden := report.golden:
        same = (
            "bit-identical to the export's"
            if golden.identical
            else "not bit-identical to the export's (other machine, runtime or content)"
        )
        said.append(f"{'golden image':22s} {golden.num_detections} detections; outputs {same}")
        said.append(
            f"{'from PyTorch':22s} scores within {golden.score_difference:.1e}, boxes within "
            f"{golden.box_difference:.1e} of the longer side (allowed: {TOLERANCE:g})"
        )
        if golden.num_missed or golden.num_others:
            said.append(f"{'':22s} misses {golden.num_missed}, and has {golden.num_others} others")
    if report.problem:
        verdict = f"FAILED: {report.problem}"
    elif report.golden is None:
        verdict = "as it was written; it has no golden image"
    elif (report.golden.num_detections, report.golden.num_others) == (0, 0):
        verdict = "as it was written; in its golden image nothing is detected, here as there"
    elif report.golden.num_missed == report.golden.num_detections:
        verdict = "as it was written; its golden image proves no more: rounding decides all detections in it"
    elif report.golden.num_missed or report.golden.num_others:
        verdict = "as it was written; this machine gives the same detections, but for what rounding decides"
    else:
        verdict = "as it was written; this machine gives the same detections"
    return [*said, f"{report.path}: {verdict}"]


def in_words(value: Any) -> str:
    """A value of the certificate in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {in_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(in_words, value))}]"
    return "not known" if value is None else str(value)


def report_as_json(report: Report) -> dict[str, Any]:
    """A report for scripts."""
    said = {part: report.metadata.get(part) for part in ("certificate", "origin")}
    machine = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__}
    return {
        "file": str(report.path),
        "same": not report.problem,
        "problem": report.problem,
        "sealed": report.sealed,
        "golden": asdict(report.golden) if report.golden else None,
        "tolerance": TOLERANCE,
        "here": machine,
        **said,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 if the file is what was exported and detects the same here, else 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="an exported ONNX file")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    given = parser.parse_args(arguments)
    try:
        report = verify_onnx(given.file)
    except OSError as error:
        parser.error(f"{given.file}: cannot be read: {error.strerror}")
    text = json.dumps(report_as_json(report), indent=2) if given.json else "\n".join(lines(report))
    sys.stdout.write(f"{text}\n")
    return int(bool(report.problem))


if __name__ == "__main__":
    sys.exit(main())
