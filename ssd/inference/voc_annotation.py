"""An annotation in Pascal VOC's XML, as labelling tools and `ssd.prepare.readers` read it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring  # written only

from ssd.prepare.annotations import Box


@dataclass(frozen=True)
class VocObject:
    """An object; corners: xmin, ymin, xmax, ymax in pixels from 1, the last one included."""

    name: str
    corners: Box
    difficult: bool = False
    score: float | None = None


def voc_annotation(file_name: str, size: tuple[int, int], objects: Iterable[VocObject]) -> bytes:
    """The XML file of an image.

    Args:
        file_name: of the image.
        size: (height, width) in pixels.
        objects: in the order of the file.
    """
    root = Element("annotation")
    _add(root, {"folder": "JPEGImages", "filename": file_name})
    _add(SubElement(root, "size"), {"width": size[1], "height": size[0], "depth": 3})
    for item in objects:
        element = SubElement(root, "object")
        _add(element, {"name": item.name, "truncated": 0, "difficult": int(item.difficult)})
        if item.score is not None:
            _add(element, {"score": f"{item.score:.4f}"})
        corners = zip(("xmin", "ymin", "xmax", "ymax"), item.corners, strict=True)
        _add(SubElement(element, "bndbox"), {tag: f"{corner:.7g}" for tag, corner in corners})
    indent(root)
    content: bytes = tostring(root, encoding="utf-8")
    return content + b"\n"


def _add(parent: Element, texts: dict[str, Any]) -> None:
    for tag, text in texts.items():
        SubElement(parent, tag).text = str(text)
