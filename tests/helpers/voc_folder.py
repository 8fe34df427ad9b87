"""Writes tiny data sets in VOC layout for the tests."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssd.prepare.readers.voc import VocList

Corners = tuple[float, float, float, float]


def picture(seed: int = 0, width: int = 40, height: int = 30) -> Image.Image:
    """Smooth colours that differ by seed, so that JPEG keeps them well."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def object_xml(name: str, corners: Corners, *, difficult: bool = False) -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    box = "".join(f"<{tag}>{value:g}</{tag}>" for tag, value in tags)
    return f"<object><name>{name}</name><difficult>{difficult:d}</difficult><bndbox>{box}</bndbox></object>"


def annotation_xml(*objects: str, width: int = 40, height: int = 30) -> bytes:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>".encode()


DOG = object_xml("dog", (5, 5, 20, 20))


def write_image(folder: Path, stem: str, image: bytes | None, annotation: bytes | None) -> None:
    for name, content in ((f"JPEGImages/{stem}.jpg", image), (f"Annotations/{stem}.xml", annotation)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)


def write_lists(folder: Path, lists: Mapping[str, Sequence[str]]) -> dict[str, list[VocList]]:
    """Write ImageSets/Main; returns what `ssd.prepare.sources.voc_lists` gives for them."""
    main = folder / "ImageSets/Main"
    main.mkdir(parents=True, exist_ok=True)
    for name, stems in lists.items():
        (main / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return {name: [VocList(folder, name)] for name in lists}


def write_folder(folder: Path, lists: Mapping[str, Sequence[str]]) -> dict[str, list[VocList]]:
    """A faultless data set: each image another picture, each with one dog. Image files are 40x30 JPEGs."""
    for seed, stem in enumerate(dict.fromkeys(stem for stems in lists.values() for stem in stems)):
        write_image(folder, stem, encode(picture(seed)), annotation_xml(DOG))
    return write_lists(folder, lists)
