"""Finds the COCO JSON files of a user's folder: which is for which split, and where its images are.

    annotations/instances_X.json                  COCO itself, CVAT
    X/_annotations.coco.json, X/labels.json       Roboflow, FiftyOne: images in the same folder or in data/
    one JSON file                                 Label Studio (result.json): all of it is train

X begins with train, val or test. Any file is found by its content, whatever its name.
"""

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ssd.errors import UserError
from ssd.layouts import SPLITS
from ssd.prepare.readers.folder_files import FolderFiles, listing, parent, stem
from ssd.prepare.readers.split_names import choose_splits, split_of

_MEND = "name it after its split: annotations/instances_train.json, instances_val.json, instances_test.json"
_KEYS = (re.compile(rb'"images"\s*:'), re.compile(rb'"(categories|annotations)"\s*:'))
_OTHER_TASKS = ("captions", "panoptic", "person_keypoints", "stuff")  # COCO's own files beside instances_*
_WORDS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class CocoFiles:
    """The annotation file of each split, and the JSON files that are not used, with the reason."""

    splits: Mapping[str, str]
    unused: Mapping[str, str]


def looks_like_coco(files: FolderFiles, name: str) -> bool:
    """Whether a JSON file is named as COCO's or has the lists of its format.

    It is searched, not parsed, as it may be large.

    Raises:
        OSError: it is not readable.
    """
    if stem(name).startswith(("instances_", "_annotations.coco")):
        return True
    with (files.root / name).open("rb") as file:
        if not file.seek(0, 2):
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(key.search(content) for key in _KEYS)


def find_coco_files(files: FolderFiles) -> CocoFiles:
    """The annotation file of "train" and, if they exist, of "val" and "test".

    Raises:
        UserError: there is no such file, none for train, one that belongs to no split, or two for one split.
    """
    every = [name for name in files.with_suffix(".json") if looks_like_coco(files, name)]
    if not every:
        found = listing(files.with_suffix(".json")) or "no .json"
        raise UserError(
            f"{files.root}: holds no annotations in COCO JSON (found: {found}); {_MEND}", key="data.path"
        )
    instances = [name for name in every if stem(name).startswith("instances_")]
    named = [name for name in every if _words(name)[0] in ("annotations", "instances")]
    beside = [name for name in every if split_of(_folder(name))]
    candidates = instances or beside or (named if len(named) == 1 else every)
    unused = {name: "its content is for another task" for name in every if _is_other_task(name)}
    candidates = [name for name in candidates if name not in unused] or candidates
    unused |= {name: f"{candidates[0]} is used" for name in every if name not in {*candidates, *unused}}
    subsets = {name: subset_of(name) for name in candidates}
    if len(candidates) == 1 and not split_of(subsets[candidates[0]]):
        return CocoFiles({"train": candidates[0]}, unused)
    splits = _by_split(files, subsets)
    return CocoFiles(
        splits, unused | {name: "train is used" for name in subsets if name not in splits.values()}
    )


def subset_of(name: str) -> str:
    """The part of a file's path that says its split: train2017 of annotations/instances_train2017.json."""
    words = stem(name).removeprefix("instances_")
    for candidate in (words, _folder(name), *_words(name)):
        if split_of(candidate):
            return candidate
    return words


def image_folders(files: FolderFiles, name: str) -> list[str]:
    """The folders that may hold the images of a JSON file, in order: of its split, common ones, the root."""
    subset, here = subset_of(name), parent(name)
    above = parent(here)
    places = [here] if _folder(name) == subset else []
    for base in dict.fromkeys((above, here, "")):
        places += [_join(base, place) for place in (subset, f"images/{subset}", "images", "data", "")]
    folders = files.folders()
    return [place for place in dict.fromkeys([*places, here]) if place in folders]


def _by_split(files: FolderFiles, subsets: Mapping[str, str]) -> dict[str, str]:
    if not any(map(split_of, subsets.values())):
        names = listing(subsets)
        raise UserError(
            f"{files.root}: found several JSON files: {names}; {_MEND}, or keep only one of them",
            key="data.path",
        )
    found: dict[str, str] = {}
    for name, subset in subsets.items():
        split = split_of(subset)
        if split is None:
            text = f"{subset!r} begins with none of {', '.join(SPLITS)}; {_MEND}"
            raise UserError(f"{files.root / name}: {text}", key="data.path")
        if split in found:
            text = f"{found[split]} is for {split}, too; leave one of them in place"
            raise UserError(f"{files.root / name}: {text}", key="data.path")
        found[split] = name
    choice = choose_splits((subsets[name] for name in found.values()), f"{files.root}: COCO JSON files")
    by_subset = {subsets[name]: name for name in found.values()}
    return {split: by_subset[subset] for split, (subset, *_) in choice.splits.items()}


def _is_other_task(name: str) -> bool:
    return stem(name).startswith(_OTHER_TASKS)


def _words(name: str) -> list[str]:
    return [*filter(None, _WORDS.split(stem(name).lower())), ""]


def _folder(name: str) -> str:
    """The name of the folder that a file is in."""
    return parent(name).rpartition("/")[2]


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
