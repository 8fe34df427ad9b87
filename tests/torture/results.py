"""What the stages write, as bytes that must be the same however often the pipeline was killed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from stages.same_bytes import lasting

STAGES = ("download", "preprocess", "train", "evaluate", "export", "report")

FILES = {
    "preprocess": (
        *(f"data/tensors/{split}/00000-of-00001.safetensors" for split in ("train", "val", "test")),
    ),
    "train": ("models/model.pt", "reports/train/history.tsv", "reports/train/priors.json"),
    "evaluate": ("reports/metrics.json", "reports/evaluate/detections.json"),
    "export": ("models/export/ssd.onnx", "models/export/ssd.torchscript.pt"),
    "report": (
        "reports/index.html",
        *(f"reports/{name}.png" for name in ("detections", "worst", "precision_recall", "augmentation")),
    ),
}
"""By the stage that writes them."""

Results = dict[str, dict[str, bytes]]
"""By stage and file; of data/raw the digests of its files."""


def results(project: Path) -> Results:
    """All of them; a file that is missing is empty."""
    found = {stage: {name: content(project / name) for name in names} for stage, names in FILES.items()}
    raw = sorted(path for path in (project / "data/raw").rglob("*") if path.is_file())
    digests = (f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(project)}" for path in raw)
    return {"download": {"data/raw": "\n".join(digests).encode()}, **found}


def content(path: Path) -> bytes:
    """A file's bytes, without what depends on the clock and the commit; none of one that is missing."""
    if not path.is_file():
        return b""
    content = lasting(path)
    return path.read_bytes() if content is None else content


def differing_bits(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> int:
    """The number of bits in which two sets of files differ; a missing byte is eight of them."""
    return sum(
        _bits(found.get(name, b""), expected.get(name, b"")) for name in found.keys() | expected.keys()
    )


def _bits(a: bytes, b: bytes) -> int:
    shared = min(len(a), len(b))
    different = int.from_bytes(a[:shared]) ^ int.from_bytes(b[:shared])
    return different.bit_count() + 8 * (max(len(a), len(b)) - shared)
