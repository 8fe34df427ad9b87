"""Detections on disk: in COCO's results format, and the same bits when they are read."""

import json
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO

from ssd.detections_file import read_detections, write_detections
from ssd.errors import UserError
from ssd.structures import Detections

IDS = ["VOC2012/ö 1", "b", "c"]


def random_detections(num: int, seed: int) -> Detections:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num, 2, generator=generator) * 500
    boxes = torch.cat([corner, corner + torch.rand(num, 2, generator=generator) ** 4 * 300], 1)
    scores = torch.rand(num, generator=generator).sort(descending=True).values
    return Detections(boxes, scores, torch.randint(1, 9, (num,), generator=generator))


FOUND = [random_detections(500, 0), random_detections(0, 1), random_detections(3, 2)]


def test_what_was_written_is_read_to_the_bit(tmp_path: Path) -> None:
    write_detections(tmp_path / "d.json", FOUND, IDS)
    for found, read in zip(FOUND, read_detections(tmp_path / "d.json", IDS), strict=True):
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(found, name), getattr(read, name)), name


def test_nothing_at_all_is_a_list_of_nothing(tmp_path: Path) -> None:
    write_detections(tmp_path / "d.json", [], [])
    assert json.loads((tmp_path / "d.json").read_text()) == []
    write_detections(tmp_path / "d.json", FOUND[1:2], ["a"])
    (read,) = read_detections(tmp_path / "d.json", ["a"])
    assert read.boxes.shape == (0, 4)


def test_pycocotools_takes_the_file(tmp_path: Path) -> None:
    write_detections(tmp_path / "d.json", FOUND, IDS)
    truth = COCO()
    truth.dataset = {"images": [{"id": name} for name in IDS], "annotations": [], "categories": []}
    truth.createIndex()
    assert len(truth.loadRes(str(tmp_path / "d.json")).anns) == 503


@pytest.mark.parametrize("content", ["", "[1]", '[{"image_id": "b"}]', "null"])
def test_a_damaged_file_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(UserError, match=r"^.*d.json: not the detections of these images \(.*\)$") as caught:
        read_detections(tmp_path / "d.json", IDS)
    assert caught.value.path == tmp_path / "d.json"


def test_detections_of_other_images_and_a_missing_file_are_one_line(tmp_path: Path) -> None:
    write_detections(tmp_path / "d.json", FOUND, IDS)
    with pytest.raises(UserError, match="not the detections of these images"):
        read_detections(tmp_path / "d.json", ["a", "b", "c"])
    with pytest.raises(UserError, match="not found"):
        read_detections(tmp_path / "other.json", IDS)
