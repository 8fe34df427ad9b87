"""Which split a folder, list or file is for, by the names that people and labelling tools give it."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Literal

from ssd.errors import UserError
from ssd.layouts import SPLITS

Named = Literal["train", "val", "test", "trainval"]

_PATTERNS: dict[Named, re.Pattern[str]] = {
    "trainval": re.compile(r"train_?val(?![a-z])"),
    "train": re.compile(r"train(?:ing)?(?:_?set)?(?![a-z])"),
    "val": re.compile(r"(?:val(?:id(?:ation)?)?|dev)(?:_?set)?(?![a-z])"),
    "test": re.compile(r"test(?:ing)?(?:_?set)?(?![a-z])"),
}


def split_of(name: str) -> Named | None:
    """The split of a name that begins with one: "Train", "valid", "test-dev2017"; None for any other."""
    lower = name.lower()
    return next((split for split, pattern in _PATTERNS.items() if pattern.match(lower)), None)


def shared_parts(paths: Sequence[Sequence[str]]) -> list[str]:
    """The parts that all paths begin with."""
    return [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]


def _subset(folder: str) -> str:
    """CVAT's obj_Validation_data is the folder of the subset Validation."""
    return folder.removeprefix("obj_").removesuffix("_data") if folder.startswith("obj_") else folder


@dataclass(frozen=True)
class Choice:
    """Which names make up each split, in order, and the names that are not used, with the reason."""

    splits: dict[str, list[str]]
    unused: dict[str, str]


def choose_splits(names: Iterable[str], place: str) -> Choice:
    """Assign names of lists or subsets to splits.

    A plain name (Train, valid) counts before one that only begins so (train_small). Names without a split are
    not used beside one for training; alone they are all train, as CVAT's default is.

    Args:
        place: what the names are and where they were found, for the message.

    Raises:
        UserError: there are splits, but none to train on.
    """
    found: dict[Named, list[str]] = {}
    unnamed: list[str] = []
    for name in names:
        split = split_of(name)
        (found.setdefault(split, []) if split else unnamed).append(name)
    chosen: dict[str, list[str]] = {}
    unused: dict[str, str] = {}
    for split, group in found.items():
        plain = [name for name in group if _PATTERNS[split].fullmatch(name.lower())]
        chosen[split] = plain or group
        unused |= {name: f"{chosen[split][0]} is {split}" for name in group if name not in chosen[split]}
    if "train" in chosen:
        chosen.pop("trainval", None)  # the union of both
    elif "trainval" in chosen:
        chosen["train"] = chosen.pop("trainval")
        unused |= dict.fromkeys(chosen.pop("val", []), f"{chosen['train'][0]} is train, which includes it")
    elif unnamed and not chosen:
        chosen["train"], unnamed = unnamed, []
    if "train" not in chosen:
        every = ", ".join([*chain(*chosen.values()), *unnamed]) or "nothing"
        raise UserError(
            f"{place}: found {every}, but none to train on; name one of them train", key="data.path"
        )
    unused |= dict.fromkeys(unnamed, "its name is none of train, val, test")
    return Choice({split: chosen[split] for split in SPLITS if split in chosen}, unused)


@dataclass(frozen=True)
class Grouping:
    """The images of each split; what makes each up; and lists or folders that are not used, with the reason.

    splits: paths of images, or lines of lists, each with the list or folder that it is from.
    """

    splits: dict[str, list[tuple[str, str]]]
    made_of: dict[str, str]
    unused: dict[str, str]


def group_by_folder(paths: Sequence[str]) -> Grouping:
    """Divide images by the folders that they are in; all are train if no folder's name says a split.

    Where the folder of all images is itself called after a split (a project train-2024), those in it count.

    Raises:
        UserError: there are folders of splits, but none to train on.
    """
    num_shared = len(shared_parts([path.split("/")[:-1] for path in paths]))
    folders = {path: split_folder(path, num_shared) for path in paths}
    below = set(map(split_of_folder, set(filter(None, folders.values()))))
    if len(below) < 2 or below.isdisjoint(("train", "trainval")):
        folders = {path: split_folder(path) for path in paths}
    named = sorted(set(filter(None, folders.values())))
    if not named:
        return Grouping({"train": [(path, "") for path in paths]}, {"train": "all images"}, {})
    subsets: dict[str, list[str]] = {}
    for folder in named:
        subsets.setdefault(_subset(folder.rpartition("/")[2]), []).append(folder)
    choice = choose_splits(subsets, "folders of images")
    splits: dict[str, list[tuple[str, str]]] = {}
    made_of: dict[str, str] = {}
    for split, names in choice.splits.items():
        members = {folder for name in names for folder in subsets[name]}
        splits[split] = [(path, folders[path]) for path in paths if folders[path] in members]
        made_of[split] = ", ".join(f"{folder}/" for folder in sorted(members))
    unused = {f"{folder}/": reason for name, reason in choice.unused.items() for folder in subsets[name]}
    return Grouping(splits, made_of, unused)


def group_by_lists(lists: Mapping[str, str], lines: Callable[[str], list[str]], place: str) -> Grouping:
    """The lines of the lists of each split; duplicates included.

    Args:
        lists: name, which says the split -> file.
        lines: reads a file.
        place: where the lists are, for the message.

    Raises:
        UserError: there are lists, but none to train on.
    """
    choice = choose_splits(lists, f"lists in {place}")
    return Grouping(
        {
            split: [(line, lists[name]) for name in names for line in lines(lists[name])]
            for split, names in choice.splits.items()
        },
        {split: ", ".join(lists[name] for name in names) for split, names in choice.splits.items()},
        {lists[name]: reason for name, reason in choice.unused.items()},
    )


def split_of_path(path: str) -> Named | None:
    """The split that the folders of a file say; None if none does."""
    return split_of_folder(split_folder(path))


def split_of_folder(folder: str) -> Named | None:
    """The split that the last part of a folder's path says: of obj_Train_data, too."""
    return split_of(_subset(folder.rpartition("/")[2]))


def split_folder(path: str, start: int = 0) -> str:
    """The path of a file up to the first folder whose name says a split: images/train; "" if none does.

    start: number of outermost folders that do not count.
    """
    parts = path.split("/")[:-1]
    ends = (n for n in range(start, len(parts)) if split_of(_subset(parts[n])))
    return next(("/".join(parts[: n + 1]) for n in ends), "")
