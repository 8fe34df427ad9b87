"""Reads data sets in the layout of the Pascal VOC development kit: lists of image ids, images, annotations.

The layout (Everingham et al., IJCV 2010): `<folder>/{JPEGImages,Annotations,ImageSets/Main}`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd.errors import UserError
from ssd.image_files import IMAGE_SUFFIXES
from ssd.prepare.annotations import Catalogue, ImageRef, Problem
from ssd.prepare.voc import AnnotationError, parse_annotation, read_list


@dataclass(frozen=True)
class VocList:
    """A list of image ids in a folder of VOC layout: `folder`/ImageSets/Main/`name`.txt."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / "ImageSets/Main" / f"{self.name}.txt"


def read_voc(lists: Mapping[str, Sequence[VocList]], class_names: Sequence[str] = ()) -> Catalogue:
    """Read the lists of "train" and perhaps "val" and "test", with the annotations of their images.

    An image that is listed twice in a split counts once. One without file or readable annotation is dropped
    with a problem.

    Raises:
        UserError: a list or a JPEGImages folder is missing.
    """
    labels = folder_labels(item.folder for items in lists.values() for item in items)
    files = {folder: _image_paths(folder) for folder in labels}
    problems: dict[str, list[Problem]] = {split: [] for split in lists}
    images = {split: _read_lists(items, labels, files, problems[split]) for split, items in lists.items()}
    return Catalogue(images, problems, tuple(class_names))


def own_lists(folder: Path) -> dict[str, list[VocList]]:
    """The lists of a user's folder. Where trainval is the train split, val is part of it and so not used."""
    lists = {name: VocList(folder, name) for name in ("train", "val", "test")}
    found = {name: [item] for name, item in lists.items() if item.path.is_file()}
    if "train" not in found:
        found.pop("val", None)
        found["train"] = [VocList(folder, "trainval")]
    return found


def folder_labels(folders: Iterable[Path]) -> dict[Path, str]:
    """A short name for each folder: its last part, or as many as tell them apart."""
    distinct = set(folders)
    depth = 1
    while len({folder.parts[-depth:] for folder in distinct}) < len(distinct):
        depth += 1
    return {folder: "/".join(folder.parts[-depth:]) for folder in distinct}


def _image_paths(folder: Path) -> dict[str, Path]:
    """Stem -> path of the images in a folder's JPEGImages."""
    images = folder / "JPEGImages"
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; `dvc repro -f download` brings the data set")
    found = [path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    found.sort(key=lambda path: (IMAGE_SUFFIXES.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path for path in found}


def _read_lists(
    items: Sequence[VocList],
    labels: Mapping[Path, str],
    files: Mapping[Path, Mapping[str, Path]],
    problems: list[Problem],
) -> list[ImageRef]:
    """The images of a split's lists; adds to `problems` what is listed twice, or missing, or no file name."""
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
                problems.append(found) if isinstance(found, Problem) else images.append(found)
    return images


def _read_image(image_id: str, folder: Path, label: str, stem: str, path: Path | None) -> ImageRef | Problem:
    image_file, annotation_file = f"{label}/JPEGImages/{stem}", f"{label}/Annotations/{stem}.xml"
    if path is None:
        return Problem(image_file, None, "there is no .jpg, .jpeg or .png of this name", "dropped")
    try:
        annotation = parse_annotation(folder / "Annotations" / f"{stem}.xml")
    except AnnotationError as error:
        return Problem(annotation_file, None, str(error), "dropped")
    return ImageRef(image_id, path, f"{label}/JPEGImages/{path.name}", annotation_file, annotation)
