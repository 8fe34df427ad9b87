"""What is written is read back by the readers of data sets, and by pycocotools."""

import csv
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from voc_folder import picture

from ssd.inference.sources import Picture, Source
from ssd.inference.tables import Add, coco_file, csv_table, voc_files, voc_side, yolo_files
from ssd.prepare.annotations import Catalogue
from ssd.prepare.readers.coco import read_coco
from ssd.prepare.readers.folder_files import FolderFiles, read_folder
from ssd.prepare.readers.voc_folder import read_voc_folder
from ssd.prepare.readers.yolo_folder import read_yolo_folder
from ssd.structures import Detections

NAMES = ["cat", "a <b> & c", "café"]
FOUND = Detections(
    torch.tensor([[0.0, 0.0, 40.0, 30.0], [3.25, 4.5, 20.125, 11.75], [12.0, 8.0, 15.5, 29.0]]),
    torch.tensor([0.9, 0.5, 0.25]),
    torch.tensor([3, 1, 2]),
)
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

Write = Callable[[Path, Sequence[str]], AbstractContextManager[Add]]


def pictures(folder: Path) -> list[Picture]:
    """Three images of 40 x 30 pixels, in the folder and in one below it."""
    found = []
    for name in ("a", "b", "below/c"):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture().save(path)
        image = torch.zeros(3, 30, 40, dtype=torch.uint8)
        found.append(Picture(Source("image", str(path), name, f"{name}.jpg"), image))
    return found


def read_yolo(files: FolderFiles) -> Catalogue:
    return read_yolo_folder(files, [])


@pytest.mark.parametrize(
    ("write", "place", "read", "tolerance"),
    [
        (coco_file, "coco.json", read_coco, 1e-4),
        (voc_files, "voc", read_voc_folder, 0.5),
        (yolo_files, "yolo", read_yolo, 1e-4),
    ],
    ids=["coco", "voc", "yolo"],
)
def test_readers_of_data_sets_find_the_same_boxes(
    tmp_path: Path, write: Write, place: str, read: Callable[[FolderFiles], Catalogue], tolerance: float
) -> None:
    with write(tmp_path / place, NAMES) as add:
        for image, found in zip(pictures(tmp_path / "images"), (FOUND, NOTHING, FOUND), strict=True):
            add(image, found)
    catalogue = read(read_folder(tmp_path))
    assert sum(problem.num_objects for problem in catalogue.found.unused) == 0
    (images,) = (refs for refs in catalogue.images.values() if refs)
    by_name = {ref.id.removeprefix("images/").removesuffix(".jpg"): ref.annotation for ref in images}
    assert len(by_name) == 3
    for (name, annotation), expected in zip(sorted(by_name.items()), (FOUND, NOTHING, FOUND), strict=True):
        assert annotation.flaws == (), name
        assert [item.name for item in annotation.objects] == [NAMES[label - 1] for label in expected.labels]
        scale = torch.tensor([40.0, 30.0] * 2) if annotation.normalised else torch.ones(4)
        boxes = torch.tensor([item.box for item in annotation.objects]).view(-1, 4) * scale
        assert boxes.allclose(expected.boxes, rtol=0, atol=tolerance)


def test_annotations_of_the_coco_file_are_results(tmp_path: Path) -> None:
    with coco_file(tmp_path / "coco.json", NAMES) as add:
        for image, found in zip(pictures(tmp_path), (FOUND, NOTHING, FOUND), strict=True):
            add(image, found)
    data = COCO(tmp_path / "coco.json")
    results = data.loadRes(json.loads((tmp_path / "coco.json").read_text())["annotations"])
    (image_id,) = (key for key, image in results.imgs.items() if image["file_name"] == "below/c.jpg")
    entries = results.loadAnns(results.getAnnIds(imgIds=[image_id]))
    assert [results.cats[entry["category_id"]]["name"] for entry in entries] == ["café", "cat", "a <b> & c"]
    assert [entry["score"] for entry in entries] == pytest.approx([0.9, 0.5, 0.25])


def test_the_table_has_a_row_per_detection(tmp_path: Path) -> None:
    image = pictures(tmp_path)[0]
    frame = Picture(Source("video", "b.mp4", "b", "b.mp4"), image.image, 12)
    with csv_table(tmp_path / "found.csv", NAMES) as add:
        add(image, FOUND)
        add(frame, FOUND)
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["frame"]) for row in rows] == [("a.jpg", "")] * 3 + [
        ("b/000012.jpg", "12")
    ] * 3
    assert [rows[1][key] for key in ("class", "score", "x1", "y2")] == ["cat", "0.5000", "3.25", "11.75"]


def test_a_table_that_breaks_is_not_there(tmp_path: Path) -> None:
    for write in (csv_table, coco_file):
        with pytest.raises(KeyError), write(tmp_path / "found", NAMES):
            raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [1, 2, 40])
def test_no_side_in_voc_is_empty_or_outside(length: int) -> None:
    for first in torch.linspace(0, length, 41).tolist():
        for last in torch.linspace(first, length, 7).tolist():
            low, high = voc_side(first, last, length)
            assert 1 <= low <= high <= length
            assert low < high or length == 1
            assert abs(low - 1 - first) <= 2
            assert abs(high - last) <= 2
