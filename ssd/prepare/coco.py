"""Reads annotations in COCO JSON (Lin et al., "Microsoft COCO", ECCV 2014; format: cocodataset.org).

Required are `images` (id, file_name), `categories` (id, name) and `annotations` (image_id, category_id,
bbox: x, y, width, height in pixels, 0-based). `iscrowd`, `height` and `width` are optional; everything else,
`segmentation` included, is ignored.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from ssd.errors import UserError
from ssd.layouts import CocoFile, find_coco_files
from ssd.prepare.annotations import AnnotatedObject, Annotation, Box, Catalogue, ImageRef, Problem

_TABLES = ("images", "annotations", "categories")
_KEPT = {*_TABLES, "id", "name", "file_name", "height", "width", "image_id", "category_id", "bbox", "iscrowd"}
_DECIMALS = 6  # kept of a coordinate in pixels; rounds off the floating-point error of x + width


@dataclass(frozen=True)
class _Content:
    """The tables of one file. categories: id -> name, in order of the ids; images: id -> its entry."""

    categories: dict[int, str]
    images: dict[int, dict[str, Any]]
    annotations: list[Any]


def read_coco(folder: Path) -> Catalogue:
    """Read a folder with COCO annotations; see `ssd.layouts` for the supported file locations.

    The classes are the categories of the train file, in order of their ids, which may have gaps. Images
    without annotations are kept. Image ids are paths relative to `folder`.

    Raises:
        UserError: a file is missing, not JSON, not in COCO's format, or has a duplicate image or category id.
    """
    images: dict[str, list[ImageRef]] = {}
    problems: dict[str, list[Problem]] = {}
    class_names: tuple[str, ...] = ()
    for split, file in find_coco_files(folder).items():
        content = _load(file.path)
        if split == "train":
            class_names = tuple(dict.fromkeys(content.categories.values()))
        images[split], problems[split] = _read_split(folder, file, content)
    return Catalogue(images, problems, class_names)


def _read_split(folder: Path, file: CocoFile, content: _Content) -> tuple[list[ImageRef], list[Problem]]:
    json_file = file.path.relative_to(folder).as_posix()
    problems: list[Problem] = []
    entries: dict[int, list[Any]] = defaultdict(list)
    for number, entry in enumerate(content.annotations, start=1):
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if _is_id(image_id) and image_id in content.images:
            entries[image_id].append(entry)
        else:
            reason = f"annotation {_entry_name(entry, number)}: no image has its image_id, {image_id!r}"
            problems.append(Problem(json_file, None, reason, "dropped"))
    refs: dict[str, ImageRef] = {}
    for image_id, image in content.images.items():
        annotation = _annotation(image, entries.get(image_id, []), content.categories)
        found = _image_ref(folder, file, json_file, image, annotation)
        if isinstance(found, ImageRef) and found.id in refs:
            found = Problem(found.annotation_file, None, f"image {image_id} is listed twice", "dropped")
        if isinstance(found, Problem):
            problems.append(found)
        else:
            refs[found.id] = found
    return list(refs.values()), problems


def _image_ref(
    folder: Path, file: CocoFile, json_file: str, image: Mapping[str, Any], annotation: Annotation
) -> ImageRef | Problem:
    name = image.get("file_name")
    if not isinstance(name, str) or not is_plain_path(name):
        reason = f"file_name is {name!r}, not a path inside the folder; image {image['id']}"
        return Problem(json_file, None, reason, "dropped")
    path = next((place / name for place in file.image_folders if (place / name).is_file()), None)
    if path is None:
        places = " or ".join(f"{place.relative_to(folder).as_posix()}/" for place in file.image_folders)
        return Problem(f"{json_file} ({name})", None, f"there is no such image in {places}", "dropped")
    image_file = path.relative_to(folder).as_posix()
    return ImageRef(image_file, path, image_file, f"{json_file} ({name})", annotation)


def is_plain_path(name: str) -> bool:
    """Whether `name` is a relative path that stays inside its folder."""
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and path.name != ""
    return plain and not any(character in name for character in "\\\0")


def _annotation(
    image: Mapping[str, Any], entries: Sequence[Any], categories: Mapping[int, str]
) -> Annotation:
    objects, flaws = [], []
    for number, entry in enumerate(entries, start=1):
        found = _object(entry, categories)
        if isinstance(found, str):
            flaws.append(f"annotation {_entry_name(entry, number)}: {found}")
        else:
            objects.append(found)
    height, width = image.get("height"), image.get("width")
    size = (round(height), round(width)) if _is_number(height) and _is_number(width) else None
    return Annotation(size, tuple(objects), tuple(flaws))


def _object(entry: Mapping[str, Any], categories: Mapping[int, str]) -> AnnotatedObject | str:
    """An object, or the reason why it cannot be read."""
    category, bbox = entry.get("category_id"), entry.get("bbox")
    if not _is_id(category) or category not in categories:
        return f"no category has its category_id, {category!r}"
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        return f"bbox is {bbox!r}, not four finite numbers"
    x, y, width, height = (float(value) for value in bbox)
    box: Box = x, y, round(x + width, _DECIMALS), round(y + height, _DECIMALS)
    crowd = entry.get("iscrowd") in (1, True)
    return AnnotatedObject(categories[category], (x, y, width, height), box, crowd=crowd)


def _load(path: Path) -> _Content:
    """Read a file, keeping only the needed keys (COCO's is 450 MB, mostly `segmentation`).

    Raises:
        UserError: not readable, not JSON, not in COCO's format, or a duplicate image or category id.
    """
    try:
        content = json.loads(path.read_bytes(), object_hook=_kept)
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # ValueError: also text that is not UTF-8
        raise UserError(f"{path}: not JSON ({error}); export the annotations again") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in _TABLES):
        raise UserError(
            f"{path}: not annotations in COCO's format, which has the lists {', '.join(_TABLES)}; "
            "export them as COCO JSON for object detection"
        )
    images = _by_id(path, "image", content["images"])
    categories = _by_id(path, "category", content["categories"])
    unnamed = [key for key, entry in categories.items() if not isinstance(entry.get("name"), str)]
    if unnamed:
        raise UserError(f"{path}: category {unnamed[0]} has no name; give it one")
    names = {key: str(categories[key]["name"]) for key in sorted(categories)}
    return _Content(names, images, content["annotations"])


def _kept(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key in _KEPT}


def _by_id(path: Path, kind: str, entries: Sequence[Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(entries, start=1):
        key = entry.get("id") if isinstance(entry, dict) else None
        if not _is_id(key):
            raise UserError(f"{path}: {kind} number {number} has no integer as id; export it again")
        if key in found:
            raise UserError(f"{path}: two entries have the {kind} id {key}; ids must differ, export it again")
        found[key] = entry
    return found


def _entry_name(entry: Any, number: int) -> str:
    """The name of an annotation in a `Problem`: its id, else its position in the list."""
    key = entry.get("id") if isinstance(entry, dict) else None
    return str(key) if _is_id(key) else f"number {number}"


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e9 and math.isfinite(value)
