"""Detections of a whole split as a file in COCO's results format; they are read back bit-identical.

A JSON list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}, one detection per line. An
image is named by its id in the tensor file; categories are the labels 1..C; boxes are in pixels.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from ssd.errors import UserError
from ssd.files import write_bytes
from ssd.structures import Detections


def write_detections(path: str | Path, detections: Sequence[Detections], image_ids: Sequence[str]) -> None:
    """Write the detections of all images, atomically; item i of both belongs to image i."""
    lines = []
    for image_id, found in zip(image_ids, detections, strict=True):
        # Python's floats represent these float32 numbers, and their differences, exactly.
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        for (x1, y1, x2, y2), score, label in rows:
            bbox = [x1, y1, x2 - x1, y2 - y1]
            entry = {"image_id": image_id, "category_id": label, "bbox": bbox, "score": score}
            lines.append(json.dumps(entry, ensure_ascii=False))
    write_bytes(path, ("[\n" + ",\n".join(lines) + "\n]\n").encode())


def read_detections(path: str | Path, image_ids: Sequence[str]) -> list[Detections]:
    """Read what `write_detections` wrote: the detections of each of `image_ids`, in their order.

    Raises:
        UserError: the file is missing, damaged, or of other images.
    """
    entries: dict[str, list[tuple[list[float], float, int]]] = {image_id: [] for image_id in image_ids}
    try:
        for entry in json.loads(Path(path).read_bytes()):
            x, y, width, height = map(float, entry["bbox"])
            box = [x, y, x + width, y + height]
            entries[entry["image_id"]].append((box, float(entry["score"]), int(entry["category_id"])))
    except FileNotFoundError:
        raise UserError(f"{path}: not found", path=path) from None
    except (ValueError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__} {error}"
        raise UserError(f"{path}: not the detections of these images ({reason})", path=path) from None
    return [_detections(rows) for rows in entries.values()]


def _detections(rows: Sequence[tuple[list[float], float, int]]) -> Detections:
    return Detections(
        torch.tensor([box for box, _, _ in rows]).view(-1, 4),
        torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
        torch.tensor([label for _, _, label in rows], dtype=torch.int64),
    )
