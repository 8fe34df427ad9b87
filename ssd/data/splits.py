"""Which images make up train, val and test: reads the lists, names the images, holds out a share of train."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd.data.checks import Problem, drop_leaks
from ssd.data.sources import VocList
from ssd.data.voc import read_list
from ssd.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
"""Of image files, in any case; where one name has several, the first of these is taken."""


@dataclass(frozen=True)
class ImageRef:
    """Where an image and its annotation are.

    id: unique over all splits; folder: in VOC layout; label: the folder's name in ids and problems;
    stem: what both files are called; image_name: the file in JPEGImages, None where there is none.
    """

    id: str
    folder: Path
    label: str
    stem: str
    image_name: str | None

    @property
    def annotation_path(self) -> Path:
        return self.folder / "Annotations" / f"{self.stem}.xml"

    @property
    def image_file(self) -> str:
        """The image's name in problems."""
        return f"{self.label}/JPEGImages/{self.image_name or self.stem}"

    @property
    def annotation_file(self) -> str:
        """The annotation's name in problems."""
        return f"{self.label}/Annotations/{self.stem}.xml"


@dataclass(frozen=True)
class Listing:
    """The images of each split and what was wrong with the lists.

    images, problems: by split, "train", "test" and, unless `test_is_val`, "val". test_is_val: the same
    images are to choose the model and to score it, for the source has no other. held_out: ids of train's
    lists that serve as val (as val and test, where `test_is_val`).
    """

    images: dict[str, list[ImageRef]]
    problems: dict[str, list[Problem]]
    test_is_val: bool
    held_out: frozenset[str]


def list_images(lists: Mapping[str, Sequence[VocList]], val_fraction: float) -> Listing:
    """Read the lists of "train", "val" and "test" and settle which image is in which split.

    An image that is listed twice in a split counts once; one that is in two splits stays in test rather
    than val, in val rather than train. Without a list for val, `val_fraction` of train is held out;
    without one for test, val is the test split too.

    Raises:
        UserError: a list or a JPEGImages folder is missing.
    """
    test_is_val = not lists.get("test") or lists.get("test") == lists.get("val")
    own = {split: lists.get(split) or [] for split in ("train", "val", "test")}
    if test_is_val:
        own = {"train": own["train"], "test": own["val"]}
    labels = folder_labels(item.folder for items in own.values() for item in items)
    files = {folder: _image_names(folder) for folder in labels}
    problems: dict[str, list[Problem]] = {split: [] for split in own}
    images = {split: _read_lists(items, labels, files, problems[split]) for split, items in own.items()}

    images, leaks = drop_leaks(images, key=lambda ref: ref.id)
    for leak in leaks:
        reason = f"is listed for {leak.owner} as well"
        problems[leak.split].append(Problem(leak.member.image_file, None, reason, "dropped"))

    held_out: set[str] = set()
    if not lists.get("val"):
        held_out = hold_out([ref.id for ref in images["train"]], val_fraction)
        receiver = "test" if test_is_val else "val"
        images[receiver] = [ref for ref in images["train"] if ref.id in held_out]
        images["train"] = [ref for ref in images["train"] if ref.id not in held_out]
    return Listing(images, problems, test_is_val, frozenset(held_out))


def folder_labels(folders: Iterable[Path]) -> dict[Path, str]:
    """A short name for each folder: its last part, or as many as tell them apart."""
    distinct = set(folders)
    depth = 1
    while len({folder.parts[-depth:] for folder in distinct}) < len(distinct):
        depth += 1
    return {folder: "/".join(folder.parts[-depth:]) for folder in distinct}


def hold_out(ids: Sequence[str], fraction: float) -> set[str]:
    """The `fraction` of `ids` (rounded, at least one unless 0) to keep from training.

    It depends on the ids alone, not on their order: those with the smallest hashes are taken.
    """
    count = max(round(len(ids) * fraction), 1) if fraction > 0 else 0
    return set(sorted(ids, key=lambda name: hashlib.sha256(f"val {name}".encode()).digest())[:count])


def _image_names(folder: Path) -> dict[str, str]:
    """Stem -> file name of the images in a folder's JPEGImages."""
    images = folder / "JPEGImages"
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; `dvc repro -f download` brings the data set")
    found = [path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    found.sort(key=lambda path: (IMAGE_SUFFIXES.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path.name for path in found}


def _read_lists(
    items: Sequence[VocList],
    labels: Mapping[Path, str],
    files: Mapping[Path, Mapping[str, str]],
    problems: list[Problem],
) -> list[ImageRef]:
    """The images of a split's lists; adds to `problems` what is listed twice or is no name of a file."""
    images: dict[str, ImageRef] = {}
    for item in items:
        label = labels[item.folder]
        list_file = f"{label}/ImageSets/Main/{item.name}.txt"
        for stem in read_list(item.path):
            image_id = f"{label}/{stem}" if len(labels) > 1 else stem
            if stem in (".", "..") or "/" in stem or "\\" in stem or "\0" in stem:
                problems.append(Problem(list_file, None, f"{stem!r} is no plain file name", "dropped"))
            elif image_id in images:
                problems.append(Problem(list_file, None, f"{stem} is listed twice", "dropped"))
            else:
                images[image_id] = ImageRef(image_id, item.folder, label, stem, files[item.folder].get(stem))
    return list(images.values())
