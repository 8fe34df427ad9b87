"""The files of a user's folder, found once, and looked up by the names that annotations give them.

Labelling tools write paths of another machine (`C:/photos/a.jpg`, `../../upload/1/a.jpg`, `data/obj/a.jpg`).
A name is therefore looked up by the longest of its ends that fits a file, and refused where several fit
equally.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ssd.layouts import IMAGE_SUFFIXES, MASK_FOLDERS, UNREAD_IMAGE_SUFFIXES, is_data_file, is_hidden
from ssd.prepare.readers.split_names import shared_parts, split_of

TELLING = ("images", "labels", "annotations", "jpegimages", "imagesets", "data")
"""Folders whose names say what their files are, so that they are part of a data set."""

_RANKS = {suffix: rank for rank, suffix in enumerate((*IMAGE_SUFFIXES, *UNREAD_IMAGE_SUFFIXES))}


@dataclass(frozen=True)
class FolderFiles:
    """Files of a data set, as sorted paths relative to `root`, with forward slashes.

    root: the folder; where it holds a single folder and nothing else, as archives often do, that one.
    images: by their suffix; labels: all others. A name that is not valid UTF-8 is in `unnameable`.
    """

    root: Path
    images: tuple[str, ...]
    labels: tuple[str, ...]
    unnameable: tuple[str, ...] = ()
    _by_name: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list), repr=False)
    _by_stem: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list), repr=False)
    _first_of: dict[str, str] = field(default_factory=dict, repr=False)
    _firsts_by_stem: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list), repr=False)

    def __post_init__(self) -> None:
        for name in (*self.images, *self.labels):
            self._by_name[_folded(_basename(name))].append(name)
        for name in self.images:
            self._by_stem[_composed(stem(name))].append(name)
        for name in sorted(self.images, key=_suffix_rank, reverse=True):
            self._first_of[bare(name)] = name
        for name in sorted(self._first_of.values()):
            self._firsts_by_stem[_composed(stem(name))].append(name)

    @property
    def num_images(self) -> int:
        """Number of image files, those with unusable names included."""
        return len(self.images) + sum(is_image(name) for name in self.unnameable)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """The label files with one of these suffixes, which are lower-case."""
        return [name for name in self.labels if PurePosixPath(name).suffix.lower() in suffixes]

    def folders(self) -> set[str]:
        """All folders that hold a file, directly or below; "" is the root."""
        found = {parent for name in (*self.images, *self.labels) for parent in PurePosixPath(name).parents}
        return {"" if parent.name == "" else parent.as_posix() for parent in found}

    def find(self, name: str, near: Sequence[str] = ("",)) -> str | None:
        """The file that `name` means, or None if there is none or several fit equally.

        Args:
            name: as an annotation gives it: relative or absolute, of this system or another.
            near: folders to which the name may be relative, in order of preference.
        """
        for place in near:
            exact = f"{place}/{name}" if place else name
            if exact in self._by_name.get(_folded(_basename(exact)), ()):
                return exact
        for candidate in (plain_parts(name), plain_parts(unquote(name))):
            found = self._find(candidate, near) if candidate else None
            if found:
                return found
        return None

    def images_of_stem(self, path: str) -> list[str]:
        """Images whose name without suffix ends with `path`, those with the most usual suffix first."""
        wanted = f"/{_composed(path)}"
        every = self._by_stem.get(_basename(wanted), ())
        found = [name for name in every if f"/{_composed(bare(name))}".endswith(wanted)]
        return sorted(found, key=_suffix_rank)

    def first_of_name(self, image: str) -> str:
        """Of the images in this one's folder with its name, the one with the most usual suffix."""
        return self._first_of[bare(image)]

    def firsts_of_stem(self, name: str) -> list[str]:
        """In each folder, the image named `name` without suffix: that with the most usual suffix."""
        return self._firsts_by_stem.get(_composed(name), [])

    def text(self, name: str) -> str:
        """The content of a label file; UTF-8, with or without a byte order mark.

        Raises:
            OSError: it is not readable; UnicodeDecodeError: it is not UTF-8.
        """
        return (self.root / name).read_text(encoding="utf-8-sig")

    def _find(self, parts: Sequence[str], near: Sequence[str]) -> str | None:
        every = self._by_name.get(_folded(parts[-1]), [])
        exact = [name for name in every if _basename(name) == parts[-1]] or every
        for place in near:
            direct = "/".join([place, *parts] if place else parts)
            if direct in exact:
                return direct
        for length in range(len(parts), 0, -1):
            end = _folded("/" + "/".join(parts[-length:]))
            fitting = [name for name in exact if _folded(f"/{name}").endswith(end)]
            if fitting:
                return closest(fitting, near)
        return None


def read_folder(folder: Path) -> FolderFiles:
    """Find the data files below `folder`, without hidden ones and masks.

    Raises:
        OSError: a folder cannot be read.
    """
    names = [name for name in _files_below(folder) if is_data_file(PurePosixPath(name))]
    inner = _only_folder(names)
    names = [name[len(inner) :] for name in names]
    nameable = sorted(name for name in names if is_text(name))
    return FolderFiles(
        folder / inner,
        images=tuple(name for name in nameable if is_image(name)),
        labels=tuple(name for name in nameable if not is_image(name)),
        unnameable=tuple(sorted(set(names) - set(nameable))),
    )


def _only_folder(names: Sequence[str]) -> str:
    """The folder that holds all files, as "export/set/"; not one whose name says something of them."""
    shared = shared_parts([name.split("/")[:-1] for name in names])
    telling = [number for number, part in enumerate(shared) if split_of(part) or part.lower() in TELLING]
    return "".join(f"{part}/" for part in shared[: telling[0] if telling else None])


def plain_parts(name: str) -> list[str]:
    """The parts of a path of any system, without drive, root, `.` and leading `..`."""
    parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    while parts and (parts[0] == ".." or parts[0].endswith(":")):
        parts.pop(0)
    return [] if ".." in parts else parts


def closest(names: Sequence[str], near: Sequence[str]) -> str | None:
    """The one of `names` that shares most leading folders with the first of `near`; None if several do."""
    for place in near:
        shared = {name: _num_shared(name, place) for name in names}
        best = [name for name in names if shared[name] == max(shared.values())]
        if len(best) == 1:
            return best[0]
    return None


def bare(name: str) -> str:
    """A path without the suffix of its file."""
    return PurePosixPath(name).with_suffix("").as_posix()


def stem(name: str) -> str:
    """The name of a file without its suffix."""
    return PurePosixPath(name).stem


def parent(name: str) -> str:
    """The folder of a file; "" is the root."""
    return "/".join(PurePosixPath(name).parts[:-1])


def listing(names: Iterable[str], limit: int = 5) -> str:
    """The first `limit` names, and how many follow, for a message."""
    every = list(names)
    more = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more


def _files_below(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder, onerror=_fail):
        folders[:] = sorted(name for name in folders if not is_hidden(name) and name not in MASK_FOLDERS)
        here = PurePosixPath(Path(place).relative_to(folder).as_posix())
        yield from ((here / name).as_posix() for name in sorted(files) if not is_hidden(name))


def _fail(error: OSError) -> None:
    raise error


def is_image(name: str) -> bool:
    """Whether a file is an image, by its suffix."""
    return PurePosixPath(name).suffix.lower() in _RANKS


def is_text(name: str) -> bool:
    """Whether a string can be written as UTF-8: file names on Linux, and strings in JSON, may not be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _composed(name: str) -> str:
    """A name with one code point per accented letter; macOS writes two."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).lower()


def _basename(name: str) -> str:
    return name.rpartition("/")[2]


def _suffix_rank(name: str) -> tuple[int, str]:
    return _RANKS[PurePosixPath(name).suffix.lower()], name


def _num_shared(name: str, place: str) -> int:
    return len(shared_parts([name.split("/"), place.split("/")]))
