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
from pathlib import Path
from typing import Any

from ssd.errors import UserError
from ssd.prepare.annotations import (
    AnnotatedObject,
    Annotation,
    Box,
    Catalogue,
    Found,
    ImageRef,
    Problem,
)
from ssd.prepare.readers.coco_files import find_coco_files, image_folders
from ssd.prepare.readers.coco_outline import outline_box
from ssd.prepare.readers.folder_files import FolderFiles, is_image, is_text, listing, plain_parts
from ssd.prepare.readers.leftovers import unused_images, unused_labels
from ssd.prepare.readers.split_names import split_folder, split_of_folder

_TABLES = ("images", "annotations", "categories")
_KEPT = {
    *_TABLES,
    *("id", "name", "supercategory", "file_name", "height", "width"),
    *("image_id", "category_id", "bbox", "iscrowd", "segmentation", "counts", "size"),
}
_MAX_DIGITS = 30
_MAX_SHOWN = 200
_DECIMALS = 6  # kept of a coordinate in pixels; rounds off the floating-point error of x + width


@dataclass(frozen=True)
class _Content:
    """The tables of one file. categories: id -> name, in order of the ids; images: id -> its entry."""

    categories: dict[int, str]
    supercategories: dict[int, Any]
    images: dict[int, dict[str, Any]]
    annotations: list[Any]


def read_coco(files: FolderFiles) -> Catalogue:
    """Read a folder with COCO annotations; see `coco_files` for the supported file locations.

    The classes are the categories of the train file, in order of their ids, which may have gaps. Images
    without annotations are kept; val or test without a single annotation is not used. Image ids are paths
    relative to the folder.

    Raises:
        UserError: a file is missing, not JSON, not in COCO's format, or has a duplicate image or category id.
    """
    found = find_coco_files(files)
    contents = {split: _load(files.root / name, split) for split, name in found.splits.items()}
    entries = {split: content.annotations for split, content in contents.items()}
    unpublished = [split for split, members in entries.items() if split != "train" and not members]
    used: set[str] = set()
    images: dict[str, list[ImageRef]] = {}
    problems: dict[str, list[Problem]] = {}
    for split, name in found.splits.items():
        if split not in unpublished:
            images[split], problems[split] = _read_split(files, name, contents[split], used)
    unused = [
        *(
            Problem(found.splits[split], None, "not used: it has no annotations", "unused")
            for split in unpublished
        ),
        *(_unused_file(files, name, reason) for name, reason in found.unused.items()),
        *unused_images(files, used, {}),
        *unused_labels(files, {*found.splits.values(), *found.unused}, "COCO JSON"),
    ]
    num_objects = sum(map(len, entries.values())) + sum(problem.num_objects for problem in unused)
    made_of = {split: name for split, name in found.splits.items() if split in images}
    return Catalogue(
        images,
        problems,
        Found(files.num_images, num_objects, "COCO JSON", made_of, unused, _notes(images["train"], made_of)),
        _class_names(contents["train"]),
    )


def _notes(train: Sequence[ImageRef], made_of: Mapping[str, str]) -> tuple[str, ...]:
    """A remark if train has images in folders that are named after another split."""
    folders = {split_folder(ref.id) for ref in train}
    others = sorted(f"{folder}/" for folder in folders if split_of_folder(folder) in ("val", "test"))
    return (f"images in {listing(others)} are in train, as {made_of['train']} says",) if others else ()


def _class_names(content: _Content) -> tuple[str, ...]:
    """The categories in order of their ids, without the one that Roboflow adds above the others."""
    used = {_as_id(entry.get("category_id")) for entry in content.annotations if isinstance(entry, dict)}
    above = {content.supercategories.get(key) for key in content.categories}
    names = [
        name
        for key, name in content.categories.items()
        if key in used or name not in above or content.supercategories.get(key) != "none"
    ]
    return tuple(dict.fromkeys(names))


def _unused_file(files: FolderFiles, name: str, reason: str) -> Problem:
    """A JSON file that no split uses, with the number of its annotations where it can be read."""
    try:
        content = json.loads((files.root / name).read_bytes(), object_pairs_hook=_kept)
    except (OSError, ValueError, RecursionError):
        content = None
    entries = content.get("annotations") if isinstance(content, dict) else None
    num_objects = len(entries) if isinstance(entries, list) else 0
    return Problem(name, None, f"not used: {reason}", "unused", 0, num_objects)


def _read_split(
    files: FolderFiles, json_file: str, content: _Content, used: set[str]
) -> tuple[list[ImageRef], list[Problem]]:
    """The images of a JSON file, and its problems; image files that it names are added to `used`."""
    problems: list[Problem] = []
    entries: dict[int, list[Any]] = defaultdict(list)
    for number, entry in enumerate(content.annotations, start=1):
        written = entry.get("image_id") if isinstance(entry, dict) else None
        image_id = _as_id(written)
        if image_id in content.images:
            entries[image_id].append(entry)
        else:
            reason = f"annotation {_entry_name(entry, number)}: no image has its image_id, {written!r}"
            problems.append(Problem(json_file, None, reason, "dropped", 0, 1))
    folders = image_folders(files, json_file)
    refs: dict[str, ImageRef] = {}
    for image_id, image in content.images.items():
        annotation = _annotation(image, entries.get(image_id, []), content.categories)
        found = _image_ref(files, folders, json_file, image, annotation)
        if isinstance(found, ImageRef) and found.id in refs:
            reason = f"image {image_id} is listed twice"
            found = Problem(found.annotation_file, None, reason, "dropped", 0, annotation.num_objects)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            refs[found.id] = found
    used.update(refs)
    return list(refs.values()), problems


def _image_ref(
    files: FolderFiles,
    folders: Sequence[str],
    json_file: str,
    image: Mapping[str, Any],
    annotation: Annotation,
) -> ImageRef | Problem:
    name = image.get("file_name")
    if not isinstance(name, str) or not plain_parts(name):
        reason = f"file_name is {_shown(name)}, no path of a file; image {image['id']}"
        return Problem(json_file, None, reason, "dropped", 0, annotation.num_objects)
    file = f"{json_file} ({_shown(name)})"
    found = files.find(name, folders)
    if found is None or not is_image(found):
        places = " or ".join(f"{folder}/" if folder else "the folder itself" for folder in folders)
        reason = f"there is no such image in {places}, nor a single one of this name elsewhere"
        return Problem(file, None, reason, "dropped", 0, annotation.num_objects)
    return ImageRef(found, files.root / found, found, file, annotation)


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
    height, width = _as_number(image.get("height")), _as_number(image.get("width"))
    size = None if height is None or width is None else (round(height), round(width))
    return Annotation(size, tuple(objects), tuple(flaws))


def _object(entry: Mapping[str, Any], categories: Mapping[int, str]) -> AnnotatedObject | str:
    """An object, or the reason why it cannot be read. Without a bbox, its outline gives the box."""
    name = categories.get(_as_id(entry.get("category_id")))  # type: ignore[arg-type]
    if name is None:
        return f"no category has its category_id, {_shown(entry.get('category_id'))}"
    crowd = entry.get("iscrowd") in (1, True, "1")
    if entry.get("bbox") is None and entry.get("segmentation"):
        outline = outline_box(entry["segmentation"])
        if outline is None:
            return "has no bbox, and its segmentation is neither polygons nor uncompressed runs"
        return AnnotatedObject(name, outline, outline, crowd=crowd)
    bbox = entry.get("bbox")
    numbers = [_as_number(value) for value in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers:
        return f"bbox is {_shown(bbox)}, not four finite numbers"
    x, y, width, height = (float(value) for value in numbers if value is not None)
    box: Box = x, y, round(x + width, _DECIMALS), round(y + height, _DECIMALS)
    return AnnotatedObject(name, (x, y, width, height), box, crowd=crowd)


def _load(path: Path, split: str = "train") -> _Content:
    """Read a file, keeping only the needed keys (COCO's is 450 MB, mostly `segmentation`).

    A list of annotations is needed for train; a test set often has none.

    Raises:
        UserError: not readable, not JSON, not in COCO's format, or a duplicate image or category id.
    """
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_kept)
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # ValueError: also text that is not UTF-8
        raise UserError(f"{path}: not JSON ({error}); export the annotations again") from None
    if isinstance(content, dict) and split != "train":
        content = {"annotations": [], "categories": [], **content}
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in _TABLES):
        raise UserError(
            f"{path}: not annotations in COCO's format, which has the lists {', '.join(_TABLES)}; "
            "export them as COCO JSON for object detection"
        )
    images = _by_id(path, "image", content["images"])
    categories = _by_id(path, "category", content["categories"])
    names = {key: _category_name(path, key, categories[key]) for key in sorted(categories)}
    above = {key: entry.get("supercategory") for key, entry in categories.items()}
    return _Content(names, above, images, content["annotations"])


def _category_name(path: Path, key: int, entry: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if isinstance(name, int | float) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{path}: category {key} has no name; give it one")
    if not is_text(name):
        raise UserError(f"{path}: the name of category {key}, {name!a}, is not valid Unicode; mend it")
    return name


def _kept(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The needed keys of an object. `segmentation` is needed only where there is no bbox.

    Raises:
        ValueError: it has a needed key twice, of which JSON would silently take the last.
    """
    entry = {key: value for key, value in pairs if key in _KEPT}
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs if key in _KEPT]
        if len(entry) < len(keys):
            raise ValueError(f"the key {max(keys, key=keys.count)!r} is there twice")
    if "segmentation" in entry and entry.get("bbox") is not None:
        del entry["segmentation"]
    return entry


def _by_id(path: Path, kind: str, entries: Sequence[Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(entries, start=1):
        key = _as_id(entry.get("id")) if isinstance(entry, dict) else None
        if key is None:
            raise UserError(f"{path}: {kind} number {number} has no integer as id; export it again")
        if key in found:
            raise UserError(f"{path}: two entries have the {kind} id {key}; ids must differ, export it again")
        found[key] = entry
    return found


def _entry_name(entry: Any, number: int) -> str:
    """The name of an annotation in a `Problem`: its id, else its position in the list."""
    key = _as_id(entry.get("id")) if isinstance(entry, dict) else None
    return f"number {number}" if key is None else str(key)


def _as_id(value: object) -> int | None:
    """An integer, also as some tools write it: 1.0 or "1"; None for anything else."""
    if type(value) is int:  # the usual case, and no bool
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < _MAX_DIGITS:
        return int(value)
    return None


def _as_number(value: object) -> float | None:
    """A finite number below a billion, also as a string; None for anything else."""
    if isinstance(value, str) and len(value) < _MAX_DIGITS:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e9 and math.isfinite(value) else None


def _shown(value: object) -> str:
    """A value for a message: short, and printable."""
    text = (
        value if isinstance(value, str) and is_text(value) and value.isprintable() and value else ascii(value)
    )
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
