"""Detections as files that other programs and `ssd.prepare.readers` read: COCO, Pascal VOC, YOLO, CSV.

Each function opens an output for a block, and yields a function that adds the detections of a picture. What
is one file is complete once the block ends, and is not there if the block fails.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssd.files import replacing
from ssd.inference.results_folder import ResultsFolder
from ssd.inference.sources import CLASSES, Picture
from ssd.inference.voc_annotation import VocObject, voc_annotation
from ssd.structures import Detections

Add = Callable[[Picture, Detections], None]

COLUMNS = ("image", "frame", "class", "score", "x1", "y1", "x2", "y2", "width", "height", "source")
"""Of the CSV file: a row is a detection; x1 to y2 are pixels of the image, of width and height."""


@contextmanager
def csv_table(path: Path, class_names: Sequence[str]) -> Iterator[Add]:
    """One table of all detections, with COLUMNS."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)

        def add(picture: Picture, found: Detections) -> None:
            height, width = picture.size
            frame = "" if picture.frame is None else picture.frame
            for row in rows(found, class_names):
                box = [f"{side:.2f}" for side in row["box"]]
                score = f"{row['score']:.4f}"
                place = picture.source.shown
                table.writerow([picture.file_name, frame, row["class"], score, *box, width, height, place])

        yield add


@contextmanager
def coco_file(path: Path, class_names: Sequence[str]) -> Iterator[Add]:
    """One data set in COCO's format, whose annotations have scores: they alone are COCO's results format."""
    images: list[dict[str, Any]] = []
    num_annotations = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')

        def add(picture: Picture, found: Detections) -> None:
            nonlocal num_annotations
            height, width = picture.size
            image: dict[str, Any] = {"id": len(images) + 1, "file_name": picture.file_name}
            image |= {"height": height, "width": width, "source": picture.source.shown}
            images.append(image if picture.frame is None else image | {"frame": picture.frame})
            for entry in coco_annotations(found, len(images), num_annotations + 1):
                file.write((",\n" if num_annotations else "\n") + json.dumps(entry))
                num_annotations += 1

        yield add
        categories = [{"id": label, "name": name} for label, name in enumerate(class_names, start=1)]
        for name, values in (("images", images), ("categories", categories)):
            lines = ",\n".join(json.dumps(value, ensure_ascii=False) for value in values)
            file.write(f'\n],\n"{name}": [\n{lines}')
        file.write("\n]}\n")


@contextmanager
def voc_files(folder: Path, class_names: Sequence[str]) -> Iterator[Add]:
    """An XML file per picture; those of a former run are deleted."""
    results = ResultsFolder(folder)

    def add(picture: Picture, found: Detections) -> None:
        objects = voc_objects(picture.size, found, class_names)
        content = voc_annotation(picture.file_name, picture.size, objects)
        results.write(f"{picture.name}.xml", content)

    yield add


@contextmanager
def yolo_files(folder: Path, class_names: Sequence[str]) -> Iterator[Add]:
    """A text file per picture, and classes.txt, with the name of each class in a line.

    Those of a former run are deleted: its classes may have been others.
    """
    results = ResultsFolder(folder)
    results.write(f"{CLASSES}.txt", "".join(f"{name}\n" for name in class_names).encode())

    def add(picture: Picture, found: Detections) -> None:
        results.write(f"{picture.name}.txt", yolo_labels(picture.size, found).encode())

    yield add


def rows(found: Detections, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Class, label, score and box (xyxy, pixels) of each detection, as JSON values."""
    labels, scores = found.labels.tolist(), found.scores.tolist()
    return [
        {"class": class_names[label - 1], "label": label, "score": score, "box": box}
        for label, score, box in zip(labels, scores, found.boxes.tolist(), strict=True)
    ]


def coco_annotations(found: Detections, image_id: int, first_id: int) -> Iterator[dict[str, Any]]:
    """COCO's entries for the detections of an image; a category's id is its label."""
    # Python's floats represent these float32 numbers, and their differences, exactly.
    entries = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    for number, ((x1, y1, x2, y2), label, score) in enumerate(entries, start=first_id):
        width, height = x2 - x1, y2 - y1
        yield {
            "id": number,
            "image_id": image_id,
            "category_id": label,
            "bbox": [x1, y1, width, height],
            "area": width * height,
            "iscrowd": 0,
            "score": score,
        }


def voc_objects(size: tuple[int, int], found: Detections, class_names: Sequence[str]) -> Iterator[VocObject]:
    """Detections as objects of Pascal VOC, with scores; size: (height, width) in pixels."""
    height, width = size
    for row in rows(found, class_names):
        x1, y1, x2, y2 = row["box"]
        (xmin, xmax), (ymin, ymax) = voc_side(x1, x2, width), voc_side(y1, y2, height)
        yield VocObject(row["class"], (xmin, ymin, xmax, ymax), score=row["score"])


def voc_side(first: float, last: float, length: int) -> tuple[int, int]:
    """The pixels from `first` to `last` as Pascal VOC counts them: from 1, the last one included.

    Whole numbers, as labelling tools want. At least two pixels, if the image has them: many tools write
    equal corners for a box without width, and so they are read.
    """
    low, high = round(first) + 1, round(last)
    if high <= low:
        low = min(max(1, int(first) + 1), max(1, length - 1))
        high = min(low + 1, length)
    return low, high


def yolo_labels(size: tuple[int, int], found: Detections) -> str:
    """Lines `class cx cy w h score`: classes count from 0, boxes are normalised to [0, 1]."""
    height, width = size
    lines = []
    for (x1, y1, x2, y2), label, score in zip(
        found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
    ):
        box = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
        lines.append(f"{label - 1} {' '.join(f'{side:.6f}' for side in box)} {score:.4f}\n")
    return "".join(lines)
