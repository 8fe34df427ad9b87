"""Boxes from the masks of Penn-Fudan."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import masks_to_boxes
from voc_folder import encode, picture

from ssd.errors import UserError
from ssd.prepare.annotations import Problem
from ssd.prepare.readers.penn_fudan import extent, read_mask, read_penn_fudan


def write(folder: Path, stem: str, mask: np.ndarray | None) -> None:
    for name in ("PNGImages", "PedMasks"):
        (folder / "PennFudanPed" / name).mkdir(parents=True, exist_ok=True)
    (folder / f"PennFudanPed/PNGImages/{stem}.png").write_bytes(encode(picture(), "PNG"))
    if mask is not None:
        Image.fromarray(mask).save(folder / f"PennFudanPed/PedMasks/{stem}_mask.png")


def mask_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """uint8 [30, 40] with person n in the n-th box, xyxy half-open."""
    mask = np.zeros((30, 40), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        mask[y1:y2, x1:x2] = number
    return mask


def test_each_value_of_a_mask_is_a_person(tmp_path: Path) -> None:
    write(tmp_path, "FudanPed00002", mask_of((0, 0, 40, 30), (3, 4, 10, 20), (12, 1, 13, 2)))
    write(tmp_path, "FudanPed00001", mask_of())
    catalogue = read_penn_fudan(tmp_path)
    assert catalogue.class_names == ("person",)
    assert catalogue.problems == {"train": []}
    empty, full = catalogue.images["train"]
    assert (empty.id, full.id) == ("FudanPed00001", "FudanPed00002")
    assert full.path == tmp_path / "PennFudanPed/PNGImages/FudanPed00002.png"
    assert full.annotation_file == "PennFudanPed/PedMasks/FudanPed00002_mask.png"
    assert empty.annotation.objects == ()
    assert [found.box for found in full.annotation.objects] == [
        (0, 0, 40, 30),
        (3, 4, 10, 20),
        (12, 1, 13, 2),
    ]
    assert full.annotation.size == (30, 40)


def test_the_extent_is_torchvisions_box_with_the_last_pixel_inside() -> None:
    masks = torch.rand(50, 30, 40, generator=torch.Generator().manual_seed(0)) > 0.995
    masks[:, 5, 7] = True
    inclusive = masks_to_boxes(masks)
    expected = inclusive + torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert torch.equal(torch.tensor([extent(mask.numpy()) for mask in masks]), expected)


def test_a_mask_with_a_palette_counts_by_value(tmp_path: Path) -> None:
    mask = Image.fromarray(mask_of((3, 4, 10, 20)))
    palette = mask.convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(tmp_path / "mask.png")
    annotation = read_mask(tmp_path / "mask.png")
    assert not isinstance(annotation, str)
    assert len(annotation.objects) == 1


def test_images_without_a_readable_mask_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, "a", None)
    write(tmp_path, "b", np.zeros((30, 40, 3), np.uint8))
    write(tmp_path, "c", mask_of())
    (tmp_path / "PennFudanPed/PedMasks/c_mask.png").write_bytes(b"<html>")
    catalogue = read_penn_fudan(tmp_path)
    assert catalogue.images == {"train": []}
    first, second, third = catalogue.problems["train"]
    missing = "there is no such mask"
    assert first == Problem("PennFudanPed/PedMasks/a_mask.png", None, missing, "dropped", num_images=1)
    assert second.reason == "a mask has one channel of 8 bits, this is RGB"
    assert third.reason.startswith("does not decode")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PNGImages: no such folder"):
        read_penn_fudan(tmp_path)
