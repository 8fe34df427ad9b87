"""Suspicious images as files for those who correct them: a VOC folder, COCO JSON, and a list.

Both hold the annotations as they are, wrong ones included: what is right, a person says. What the model sees
is in the list, and in COCO's file beside the annotations, under a key of its own, which readers leave alone.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssd.audit.suspects import Suspect
from ssd.files import write_bytes, write_json
from ssd.inference.voc_annotation import VocObject, voc_annotation
from ssd.loading.tensor_file import TensorFile

JPEG = b"\xff\xd8"
COLUMNS = (
    "kind",
    "suspicion",
    "image_id",
    "object",
    "annotated",
    "annotated_box",
    "seen",
    "seen_box",
    "score",
)


def rows_of(suspects: Iterable[Suspect], file: TensorFile) -> list[dict[str, Any]]:
    """The list, with names instead of indices and labels; boxes are xyxy in pixels."""

    def name(label: int | None) -> str | None:
        return None if label is None else file.class_names[label - 1]

    return [
        {
            **asdict(suspect),
            "image": suspect.image,
            "image_id": file.image_ids[suspect.image],
            "annotated": name(suspect.annotated_label),
            "seen": name(suspect.seen_label),
        }
        for suspect in suspects
    ]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The list as a table, boxes as "x1 y1 x2 y2" in pixels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(row[column]) for column in COLUMNS] for row in rows)
    write_bytes(path, text.getvalue().encode())


def write_coco(path: Path, rows: Sequence[dict[str, Any]], file: TensorFile) -> None:
    """The suspicious images with all their annotations in COCO's layout; `suspects` names those in the list.

    A suspect's `annotation_id` is that of its object, null where one is missing.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids: dict[tuple[int, int], int] = {}
    for index in suspicious_images(rows):
        height, width = file.sizes[index].tolist()
        images.append(
            {"id": index + 1, "file_name": image_name(file, index), "width": width, "height": height}
        )
        for place, row in enumerate(range(*file.box_offsets[index : index + 2].tolist())):
            x1, y1, x2, y2 = file.boxes[row].tolist()
            ids[index, place] = len(annotations) + 1
            annotations.append(
                {
                    "id": ids[index, place],
                    "image_id": index + 1,
                    "category_id": int(file.labels[row]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(file.crowd[row]),
                }
            )
    suspects = [{**row, "annotation_id": ids.get((row["image"], row["object"]))} for row in rows]
    categories = [{"id": label, "name": name} for label, name in enumerate(file.class_names, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories, "suspects": suspects}
    write_json(path, content)


def write_voc(folder: Path, rows: Sequence[dict[str, Any]], file: TensorFile) -> None:
    """The suspicious images in Pascal VOC's layout, most suspicious first in ImageSets/Main/train.txt."""
    stems = []
    for index in suspicious_images(rows):
        name = image_name(file, index)
        write_bytes(folder / "JPEGImages" / name, file.encoded(index).numpy().tobytes())
        height, width = file.sizes[index].tolist()
        annotation = voc_annotation(name, (height, width), voc_objects(file, index))
        write_bytes(folder / "Annotations" / f"{Path(name).stem}.xml", annotation)
        stems.append(Path(name).stem)
    write_bytes(folder / "ImageSets" / "Main" / "train.txt", "".join(f"{stem}\n" for stem in stems).encode())


def suspicious_images(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Their indices, each once, in the order of the list."""
    return list(dict.fromkeys(row["image"] for row in rows))


def image_name(file: TensorFile, index: int) -> str:
    """A file name that is the same on every system; ids may be paths, as in a folder of one's own."""
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in file.image_ids[index])
    is_jpeg = file.encoded(index)[:2].numpy().tobytes() == JPEG
    # Two ids may have the same letters; their places differ.
    unique = stem if stem == file.image_ids[index] else f"{stem}_{index}"
    return f"{unique}.{'jpg' if is_jpeg else 'png'}"


def voc_objects(file: TensorFile, index: int) -> Iterator[VocObject]:
    """The objects of an image as they are annotated; VOC has no crowd: it is difficult."""
    for row in range(*file.box_offsets[index : index + 2].tolist()):
        x1, y1, x2, y2 = file.boxes[row].tolist()
        name = file.class_names[int(file.labels[row]) - 1]
        yield VocObject(name, (x1 + 1, y1 + 1, x2, y2), bool(file.difficult[row] | file.crowd[row]))


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return " ".join(f"{number:.1f}" for number in value)
    return f"{value:.4f}" if isinstance(value, float) else value
