"""The files that the stages write, as bytes that are the same whenever the results are.

Left out is what the clock decides, and the commit and the machine that an exported file names.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ssd.files import sha256

CLOCK = {"images_per_s", "data_wait", "seconds"}
"""The columns of the history that the clock decides."""

NOT_OF_THE_RESULT = {"latency_ms", "seconds_per_image", "bytes"}
"""Of export.json and ensemble.json: what the clock decides, and the length of files that name a commit and if
it is dirty."""


def lasting_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content, without what the clock and the commit decide."""
    content = lasting(path)
    return sha256(path) if content is None else hashlib.sha256(content).hexdigest()


def lasting(path: Path) -> bytes | None:
    """What lasts of a file; None for all of it, which may be many GB and is not read here."""
    match path.name:
        case "history.tsv":
            rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
            kept = [index for index, name in enumerate(rows[0]) if name not in CLOCK]
            return "\n".join("\t".join(row[index] for index in kept) for row in rows).encode()
        case "ssd.onnx" | "ssd.torchscript.pt":
            from ssd.export.certificate import without_origin

            return without_origin(path)
        case "export.json" | "ensemble.json":
            return json.dumps(_lasting_part(json.loads(path.read_bytes()))).encode()
    return None


def _lasting_part(report: Any) -> Any:
    if not isinstance(report, dict):
        return report
    return {key: _lasting_part(value) for key, value in report.items() if key not in NOT_OF_THE_RESULT}
