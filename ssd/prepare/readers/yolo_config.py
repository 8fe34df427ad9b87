"""Reads what YOLO tools write beside the labels: data.yaml with names and splits; lists of class names."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ssd.errors import UserError
from ssd.prepare.readers.folder_files import FolderFiles, listing, parent, stem

_USUAL = ("data", "dataset")
_NAME_LISTS = ("obj.names", "_darknet.labels", "classes.txt", "predefined_classes.txt")
_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class YoloConfig:
    """Class names and splits as the folder states them.

    names: in the order of their numbers; () if it states none. names_file, file: where they are stated, and
    the data.yaml, "" if there is none. splits: split -> folders or lists, as written. near: folders to which
    these may be relative. pose: labels have keypoints. unused: YAML files and lists of names, with the
    reason.
    """

    names: tuple[str, ...]
    names_file: str
    file: str = ""
    splits: dict[str, list[str]] = field(default_factory=dict)
    near: tuple[str, ...] = ("",)
    pose: bool = False
    unused: dict[str, str] = field(default_factory=dict)


def read_config(files: FolderFiles) -> YoloConfig:
    """The data.yaml of a folder, and class names from it or else from a list of names.

    Raises:
        UserError: data.yaml or the names cannot be read, or several YAML files could be meant.
    """
    contents, unused = _candidates(files)
    usual = [name for name in contents if stem(name) in _USUAL]
    chosen = usual or list(contents)
    if len(chosen) > 1:
        text = f"found {listing(chosen)}, each of which could say the splits; keep one of them"
        raise UserError(f"{files.root}: {text}", key="data.path")
    unused |= {name: f"{chosen[0]} is used" for name in contents if name not in chosen}
    if not chosen:
        return YoloConfig(*_listed_names(files), unused=unused)
    (file,) = chosen
    content = contents[file]
    names = _names(files.root / file, content)
    unused |= {name: f"the class names are those of {file}" for name in name_lists(files) if names}
    return YoloConfig(
        *((names, file) if names else _listed_names(files)),
        file=file,
        splits=_splits(files.root / file, content),
        near=_near(content, parent(file)),
        pose=bool(content.get("kpt_shape")),
        unused=unused,
    )


def name_lists(files: FolderFiles) -> list[str]:
    """Lists of class names, the one that is used first."""
    found = [name for name in files.labels if name.rpartition("/")[2].lower() in _NAME_LISTS]
    rank = {name: order for order, name in enumerate(_NAME_LISTS)}
    return sorted(found, key=lambda name: (rank[name.rpartition("/")[2].lower()], name))


def _candidates(files: FolderFiles) -> tuple[dict[str, dict[Any, Any]], dict[str, str]]:
    """YAML files with names or splits, and why others are not used."""
    contents: dict[str, dict[Any, Any]] = {}
    unused: dict[str, str] = {}
    for name in files.with_suffix(".yaml", ".yml"):
        try:
            content = _load(files.root / name)
        except UserError as error:
            if stem(name) in _USUAL:
                raise
            unused[name] = str(error)
            continue
        if isinstance(content, dict) and {"names", "nc", *_SPLIT_KEYS} & set(map(str, content)):
            contents[name] = content
        elif stem(name) in _USUAL:
            raise UserError(f"{files.root / name}: holds neither names nor splits; mend it", key="data.path")
        else:
            unused[name] = "it has neither names nor splits"
    return contents, unused


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than {_MAX_BYTES:,} bytes; no file of class names and splits")
        # YAML 1.2, in which yes, no and on are strings and so valid class names.
        return YAML(typ="safe", pure=True).load(path.read_text("utf-8-sig"))
    except UserError:
        raise
    except (YAMLError, ValueError, RecursionError, OSError, AttributeError, TypeError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not readable ({reason})") from None


def _names(path: Path, content: dict[Any, Any]) -> tuple[str, ...]:
    """names, a list or a mapping number: name; () if there is only nc, the number of classes.

    Raises:
        UserError: they are not unique or not numbered from 0.
    """
    if "names" not in content and "nc" in content:
        return ()
    if "names" not in content and set(map(str, content)) & set(_SPLIT_KEYS):
        return ()
    names: Any = content.get("names")
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items()}
        if set(numbered) == set(map(str, range(len(names)))):
            names = [numbered[str(number)] for number in range(len(names))]
    plain = isinstance(names, list) and all(isinstance(name, str | int | float) for name in names)
    if not plain or not 0 < len(names) == len({str(name) for name in names}):
        raise UserError(f"{path}: names must be unique, in a list or numbered from 0; mend it")
    return tuple(str(name) for name in names)


def _splits(path: Path, content: dict[Any, Any]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for key, split in _SPLIT_KEYS.items():
        value = content.get(key)
        entries: list[Any] = value if isinstance(value, list) else [value]
        entries = [entry for entry in entries if entry not in (None, "")]
        if not all(isinstance(entry, str) for entry in entries):
            raise UserError(f"{path}: {key} must be a path or a list of paths; mend it", key="data.path")
        if entries:
            splits.setdefault(split, []).extend(entries)
    return splits


def _near(content: dict[Any, Any], here: str) -> tuple[str, ...]:
    """The folders to which paths in data.yaml may be relative: `path` in its folder, or that folder."""
    path = content.get("path")
    below = "/".join(part for part in str(path).replace("\\", "/").split("/") if part not in ("", ".", ".."))
    joined = f"{here}/{below}" if here and below else here or below
    return tuple(dict.fromkeys((joined, below, here))) if isinstance(path, str) else (here,)


def _listed_names(files: FolderFiles) -> tuple[tuple[str, ...], str]:
    """Class names of a list, one per line, and its file.

    Raises:
        UserError: it is not readable, or two lists differ.
    """
    found: dict[tuple[str, ...], str] = {}
    for name in name_lists(files):
        try:
            lines = files.text(name).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{files.root / name}: not readable ({error})", key="data.path") from None
        names = tuple(line.strip() for line in lines if line.strip())
        if len(set(names)) < len(names):
            raise UserError(f"{files.root / name}: a name is there twice; mend it", key="data.path")
        if names:
            found.setdefault(names, name)
    if len(found) > 1:
        text = f"{listing(found.values())} hold different class names; keep one of them"
        raise UserError(f"{files.root}: {text}", key="data.path")
    return next(iter(found.items()), ((), ""))
