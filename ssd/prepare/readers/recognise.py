"""Recognises the format of the annotations in a user's folder, by the content of its files."""

from collections.abc import Callable
from itertools import islice
from pathlib import PurePosixPath
from typing import Literal

from ssd.errors import UserError
from ssd.params import Source
from ssd.prepare.readers.coco_files import looks_like_coco
from ssd.prepare.readers.folder_files import FolderFiles, listing, stem
from ssd.prepare.readers.yolo_config import name_lists
from ssd.prepare.readers.yolo_labels import looks_like_labels

Format = Literal["voc_dir", "coco_json", "yolo_dir"]

FORMATS: dict[Format, str] = {
    "voc_dir": "Pascal VOC XML",
    "coco_json": "COCO JSON",
    "yolo_dir": "YOLO text files",
}

_NUM_TRIED = 50
_HEAD = 4096  # bytes

_OTHERS = {
    "CVAT for images": (".xml", (b"<annotations>",)),
    "LabelMe": (".json", (b'"shapes"', b'"imagePath"')),
    "Label Studio": (".json", (b'"annotations"', b'"result"')),
    "VGG Image Annotator": (".json", (b'"shape_attributes"',)),
    "CreateML": (".json", (b'"annotations"', b'"coordinates"')),
    "VoTT": (".json", (b"vott",)),
}
"""Formats that are not read: suffix, and what is among the first bytes of a file."""


def recognise(files: FolderFiles, source: Source = "folder") -> Format:
    """The one format in which the images of the folder are annotated.

    Args:
        source: `data.source`; other than "folder" it is the format that must be there, others may be, too.

    Raises:
        UserError: there is none, or several; the message says what was found.
        OSError: a file is not readable.
    """
    if not files.images:
        raise UserError(f"{files.root} holds no images", key="data.path")
    found: list[Format] = [name for name, has in _SIGNS.items() if has(files)]
    if source != "folder":
        found = [name for name in found if name == source] or found
        if found and found[0] != source:
            raise UserError(
                f"{files.root} holds {FORMATS[found[0]]}, not {FORMATS[source]}; "  # type: ignore[index]
                f"set data.source: {found[0]}",
                key="data.path",
            )
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(FORMATS[name] for name in found)
        raise UserError(
            f"{files.root} holds {names}; set data.source to the one to read: {' or '.join(found)}",
            key="data.path",
        )
    raise UserError(f"{files.root} holds {_description(files)}", key="data.path")


def _has_voc(files: FolderFiles) -> bool:
    heads = (
        _head(files, name).replace(b"\0", b"") for name in files.with_suffix(".xml")[:_NUM_TRIED]
    )  # UTF-16
    return any(b"<annotation" in head and b"<annotations" not in head for head in heads)


def _has_coco(files: FolderFiles) -> bool:
    return any(looks_like_coco(files, name) for name in files.with_suffix(".json"))


def _has_yolo(files: FolderFiles) -> bool:
    known = set(name_lists(files))
    texts = (name for name in files.with_suffix(".txt") if name not in known)
    labels = (name for name in texts if files.images_of_stem(stem(name)))
    heads = (_head(files, name).decode("utf-8-sig", errors="replace") for name in labels)
    # Any number of label files may be empty, as of images without objects.
    return any(map(looks_like_labels, islice(filter(str.strip, heads), _NUM_TRIED)))


_SIGNS: dict[Format, Callable[[FolderFiles], bool]] = {
    "voc_dir": _has_voc,
    "coco_json": _has_coco,
    "yolo_dir": _has_yolo,
}


def _head(files: FolderFiles, name: str) -> bytes:
    try:
        with (files.root / name).open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _description(files: FolderFiles) -> str:
    """What is there instead of annotations, and the way out."""
    suffixes = sorted({PurePosixPath(name).suffix.lower() for name in files.labels})
    others = f"; other files: {listing(suffixes)}" if suffixes else ""
    for name in files.labels[:_NUM_TRIED]:
        head = _head(files, name)
        for kind, (suffix, signs) in _OTHERS.items():
            if name.lower().endswith(suffix) and all(sign in head for sign in signs):
                others = f"; {name} is in a format of {kind} that is not read"
    return (
        f"{len(files.images)} images, but no annotations in {', '.join(FORMATS.values())}{others}; "
        "export it from the labelling tool in one of these formats"
    )
