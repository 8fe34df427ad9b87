"""Layouts of data sets on disk, for download and preprocess: splits, image suffixes, COCO's files.

Three layouts of a folder with COCO annotations are supported, as COCO itself and annotation tools write them:
    annotations/instances_X.json    X begins with train, val or test; images in X/, images/X/, images/ or
                                    the folder itself
    X/_annotations.coco.json        images beside it; X as above, or valid
    one JSON file                   in the folder or in annotations/; all of it is train, from which splits
                                    are held out; images in images/, beside the file or in the folder
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssd.errors import UserError

SPLITS = ("train", "val", "test")

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Of the formats that preprocess decodes (`ssd.prepare.images.FORMATS`), in upper or lower case; if an image
exists with several, the first of these is used."""

OWN_SOURCES = ("voc_dir", "coco_json", "yolo_dir")
"""Values of `data.source` for a folder of the user's own."""

_MEND = "name it after its split: annotations/instances_train.json, instances_val.json, instances_test.json"


@dataclass(frozen=True)
class CocoFile:
    """A JSON file, and the folders that are searched for its images, in order."""

    path: Path
    image_folders: tuple[Path, ...]


def find_coco_files(folder: Path) -> dict[str, CocoFile]:
    """The annotation file of "train" and, if they exist, of "val" and "test".

    Raises:
        UserError: there is no JSON file, none for train, one that belongs to no split, or two for one split.
    """
    instances = _json_files(folder / "annotations", "instances_*.json")
    if len(instances) > 1 or (instances and _split_of(_subset(instances[0]))):
        return _by_split(folder, {path: _subset(path) for path in instances})
    beside = sorted(folder.glob("[!.]*/_annotations.coco.json"))
    if beside:
        return _by_split(folder, {path: path.parent.name for path in beside})
    return {"train": _only_file(folder)}


def _by_split(folder: Path, files: Mapping[Path, str]) -> dict[str, CocoFile]:
    """The files by split. files: path -> name of its subset, which begins with the split."""
    found: dict[str, CocoFile] = {}
    for path, subset in files.items():
        split = _split_of(subset)
        if split is None:
            raise UserError(f"{path}: {subset!r} begins with none of {', '.join(SPLITS)}; {_MEND}")
        if split in found:
            raise UserError(
                f"{path}: {found[split].path.name} is for {split}, too; leave one of them in place"
            )
        is_beside = path.parent.name == subset
        places = (path.parent,) if is_beside else _places(folder, subset)
        found[split] = CocoFile(path, _existing(*places))
    if "train" not in found:
        raise UserError(f"{folder}: found {', '.join(map(str, files))}, but none to train on; {_MEND}")
    return {split: found[split] for split in SPLITS if split in found}


def _only_file(folder: Path) -> CocoFile:
    every = [*_json_files(folder), *_json_files(folder / "annotations")]
    named = [path for path in every if path.stem.split("_")[0] in ("annotations", "instances")]
    candidates = named or every
    if not candidates:
        raise UserError(
            f"{folder}: holds no annotations in COCO JSON, nor does its folder annotations; {_MEND}"
        )
    if len(candidates) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in candidates[:5])
        raise UserError(f"{folder}: found several JSON files: {names}; {_MEND}, or keep only one of them")
    (path,) = candidates
    return CocoFile(path, _existing(*_places(folder, _subset(path)), path.parent))


def _places(folder: Path, subset: str) -> tuple[Path, ...]:
    return folder / subset, folder / "images" / subset, folder / "images", folder


def _existing(*places: Path) -> tuple[Path, ...]:
    return tuple(place for place in dict.fromkeys(places) if place.is_dir())


def _json_files(folder: Path, pattern: str = "*.json") -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))


def _subset(path: Path) -> str:
    return path.stem.removeprefix("instances_")


def _split_of(subset: str) -> str | None:
    return next((split for split in SPLITS if subset.lower().startswith(split)), None)
