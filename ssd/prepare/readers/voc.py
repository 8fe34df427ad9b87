"""Reads the public data sets of Pascal VOC: lists of image ids, images, XML annotations.

`<folder>/{JPEGImages,Annotations,ImageSets/Main}`: Everingham et al., "The Pascal Visual Object Classes (VOC)
Challenge", IJCV 2010, and the documentation of the development kit.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd.errors import UserError
from ssd.layouts import IMAGE_SUFFIXES
from ssd.prepare.annotations import Catalogue, Found, ImageRef, Problem
from ssd.prepare.readers.voc_xml import AnnotationError, parse_annotation

_FLAGGED_LINE = re.compile(r"(.+?)\s+(?:-1|0|1)")


@dataclass(frozen=True)
class VocList:
    """A list of image ids in a folder of VOC layout: `folder`/ImageSets/Main/`name`.txt."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / "ImageSets/Main" / f"{self.name}.txt"


def read_voc(lists: Mapping[str, Sequence[VocList]], class_names: Sequence[str] = ()) -> Catalogue:
    """Read the lists of "train" and optionally "val" and "test", with the annotations of their images.

    An image listed twice in a split is used once. One without an image file or a readable annotation is
    dropped and reported as a problem.

    Raises:
        UserError: a list or a JPEGImages folder is missing.
    """
    labels = folder_labels(item.folder for items in lists.values() for item in items)
    files = {folder: _image_paths(folder) for folder in labels}
    problems: dict[str, list[Problem]] = {split: [] for split in lists}
    num_objects: dict[str, int] = {}
    images = {
        split: _read_lists(items, labels, files, problems[split], num_objects)
        for split, items in lists.items()
    }
    found = Found(num_images=len(num_objects), num_objects=sum(num_objects.values()))
    return Catalogue(images, problems, found, tuple(class_names))


def folder_labels(folders: Iterable[Path]) -> dict[Path, str]:
    """A short name per folder: its last path component, or as many as make the names unique."""
    distinct = set(folders)
    depth = 1
    while len({folder.parts[-depth:] for folder in distinct}) < len(distinct):
        depth += 1
    return {folder: "/".join(folder.parts[-depth:]) for folder in distinct}


def _image_paths(folder: Path) -> dict[str, Path]:
    """Stem -> path of the images in a folder's JPEGImages."""
    images = folder / "JPEGImages"
    if not images.is_dir():
        raise UserError(f"{images}: no such folder", path=images)
    found = [path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    found.sort(key=lambda path: (IMAGE_SUFFIXES.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path for path in found}


def _read_lists(
    items: Sequence[VocList],
    labels: Mapping[Path, str],
    files: Mapping[Path, Mapping[str, Path]],
    problems: list[Problem],
    num_objects: dict[str, int],
) -> list[ImageRef]:
    """The images of a split's lists; duplicate, missing and invalid entries are appended to `problems`.

    The number of annotated objects of each image that exists is added to `num_objects`, by its id.
    """
    images: list[ImageRef] = []
    seen: set[str] = set()
    for item in items:
        label = labels[item.folder]
        list_file = f"{label}/ImageSets/Main/{item.name}.txt"
        for stem in read_list(item.path):
            image_id = f"{label}/{stem}" if len(labels) > 1 else stem
            if stem in (".", "..") or "/" in stem or "\\" in stem or "\0" in stem:
                problems.append(Problem(list_file, None, f"{stem!r} is no plain file name", "dropped"))
            elif image_id in seen:
                problems.append(Problem(list_file, None, f"{stem} is listed twice", "dropped"))
            else:
                seen.add(image_id)
                found = _read_image(image_id, item.folder, label, stem, files[item.folder].get(stem))
                if isinstance(found, ImageRef):
                    images.append(found)
                    num_objects[image_id] = found.annotation.num_objects
                else:
                    problems.append(found)
                    num_objects |= {image_id: 0} if found.num_images else {}
    return images


def _read_image(image_id: str, folder: Path, label: str, stem: str, path: Path | None) -> ImageRef | Problem:
    image_file, annotation_file = f"{label}/JPEGImages/{stem}", f"{label}/Annotations/{stem}.xml"
    if path is None:
        return Problem(image_file, None, "there is no image of this name", "dropped")
    try:
        annotation = parse_annotation(folder / "Annotations" / f"{stem}.xml")
    except AnnotationError as error:
        return Problem(annotation_file, None, str(error), "dropped", num_images=1)
    return ImageRef(image_id, path, f"{label}/JPEGImages/{path.name}", annotation_file, annotation)


def read_list(path: str | Path) -> list[str]:
    """Read the image ids of a list in ImageSets/Main, one per line, in order, duplicates included.

    The lists of single classes (cat_train.txt) have a second column of -1, 0 or 1, which is dropped.

    Raises:
        UserError: the list is missing or not UTF-8.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: not found", path=path) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; a list has one image id per line") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    flagged = [_FLAGGED_LINE.fullmatch(line) for line in lines]
    # The column is dropped only if every line has it: an id may itself end in " 1".
    return [match[1] for match in flagged if match] if all(flagged) else lines
