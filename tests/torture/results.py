"""What the stages write, as bytes that must be the same however often the pipeline was killed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

STAGES = ("download", "preprocess", "train", "evaluate", "export", "report")

FILES = {
    "preprocess": (*(f"data/tensors/{split}.safetensors" for split in ("train", "val", "test")),),
    "train": ("models/model.pt", "reports/train/history.tsv", "reports/train/priors.json"),
    "evaluate": ("reports/metrics.json", "reports/evaluate/detections.json"),
    "export": ("models/export/ssd.onnx", "models/export/ssd.torchscript.pt"),
    "report": (
        "reports/index.html",
        *(f"reports/{name}.png" for name in ("detections", "worst", "precision_recall", "augmentation")),
    ),
}
"""By the stage that writes them."""

CLOCK = {"images_per_s", "data_wait", "seconds"}
"""The columns of the history that the clock decides."""

Results = dict[str, dict[str, bytes]]
"""By stage and file; of data/raw the digests of its files."""


def results(project: Path) -> Results:
    """All of them; a file that is missing is empty."""
    found = {stage: {name: content(project / name) for name in names} for stage, names in FILES.items()}
    raw = sorted(path for path in (project / "data/raw").rglob("*") if path.is_file())
    digests = (f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(project)}" for path in raw)
    return {"download": {"data/raw": "\n".join(digests).encode()}, **found}


def content(path: Path) -> bytes:
    """A file's bytes, without what depends on the clock, or on the command that started its stage."""
    if not path.is_file():
        return b""
    special = {"history.tsv": _without_clock, "ssd.torchscript.pt": _without_call_stacks}
    return special.get(path.name, Path.read_bytes)(path)


def _without_clock(path: Path) -> bytes:
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    kept = [index for index, name in enumerate(rows[0]) if name not in CLOCK]
    return "\n".join("\t".join(row[index] for index in kept) for row in rows).encode()


def _without_call_stacks(path: Path) -> bytes:
    """The parts of a TorchScript archive but for debug information (and a digest of all)."""
    with ZipFile(path) as archive:
        names = [
            name for name in archive.namelist() if not name.endswith((".debug_pkl", "/serialization_id"))
        ]
        return b"".join(name.encode() + archive.read(name) for name in names)


def differing_bits(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> int:
    """The number of bits in which two sets of files differ; a missing byte is eight of them."""
    return sum(
        _bits(found.get(name, b""), expected.get(name, b"")) for name in found.keys() | expected.keys()
    )


def _bits(a: bytes, b: bytes) -> int:
    shared = min(len(a), len(b))
    different = int.from_bytes(a[:shared]) ^ int.from_bytes(b[:shared])
    return different.bit_count() + 8 * (max(len(a), len(b)) - shared)
