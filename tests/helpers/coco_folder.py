"""Writes tiny data sets with COCO JSON for the tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voc_folder import encode, picture

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 90, "name": "brush"}]


def image(number: int, name: str, **changes: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": 30, "width": 40, "license": 1, **changes}


def annotation(number: int, image_id: int, **changes: Any) -> dict[str, Any]:
    outline = [[1.0, 2.0, 9.0, 2.0, 9.0, 12.0]]
    entry = {"id": number, "image_id": image_id, "category_id": 18, "bbox": [1.0, 2.0, 8.0, 10.0]}
    return {**entry, "iscrowd": 0, "area": 80.0, "segmentation": outline, **changes}


def write_json(
    path: Path,
    images: Sequence[Any],
    annotations: Sequence[Any],
    categories: Sequence[Any] = CATEGORIES,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
    path.write_text(json.dumps(content))


def write_images(folder: Path, *names: str) -> None:
    """JPEGs of 40x30 pixels, each another picture."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(picture(sum(name.encode()))))


def write_coco(folder: Path, **splits: Sequence[str]) -> None:
    """A faultless data set: in each image one dog; train="ab" gives images train2017/{a,b}.jpg."""
    for split, stems in splits.items():
        names = [f"{stem}.jpg" for stem in stems]
        write_images(folder / f"{split}2017", *names)
        images = [image(number, name) for number, name in enumerate(names, start=1)]
        annotations = [annotation(number, number) for number, _ in enumerate(names, start=1)]
        write_json(folder / f"annotations/instances_{split}2017.json", images, annotations)
