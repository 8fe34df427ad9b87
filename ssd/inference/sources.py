"""What the sources of a command line mean: image files, folders, globs, URLs, videos and cameras."""

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from torch import Tensor

from ssd.errors import UserError
from ssd.files import expand_home
from ssd.layouts import IMAGE_SUFFIXES, UNREAD_IMAGE_SUFFIXES, is_hidden

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
_CAMERA = re.compile(r"camera:(\d{1,3})")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_GLOB = re.compile(r"[*?[]")
_LONGEST = 200
"""Bytes of a file's name without suffix; file systems allow 255."""

CLASSES = "classes"
"""No name of a source: YOLO's classes.txt is beside the files that are written about the sources."""

Kind = Literal["image", "url", "video", "camera"]


@dataclass(frozen=True)
class Source:
    """An image, or a video.

    place: a path, a URL, or a camera's number; name: of what is written about it, different for each source:
    a relative path without suffix, of printable characters; file_name: its own relative path, with suffix.
    """

    kind: Kind
    place: str
    name: str
    file_name: str

    @property
    def shown(self) -> str:
        """The place as printable text: a path may have line breaks, or bytes that are no text."""
        return _printable(self.place)


@dataclass(frozen=True)
class Picture:
    """A decoded image, or a frame of a video: uint8 RGB [3, H, W].

    frame: its number in the video, from 0; time: seconds from the video's start. None for an image.
    """

    source: Source
    image: Tensor
    frame: int | None = None
    time: Fraction | None = None

    @property
    def name(self) -> str:
        """Of what is written about it: a relative path without suffix."""
        return self.source.name if self.frame is None else f"{self.source.name}/{self.frame:06d}"

    @property
    def file_name(self) -> str:
        """What tables call it; frames of a video exist as files only if they are extracted."""
        return self.source.file_name if self.frame is None else f"{self.name}.jpg"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[1], self.image.shape[2]


@dataclass(frozen=True)
class Unread:
    """A source that cannot be read, or of a video the rest, and why."""

    source: Source
    reason: str


def find_sources(texts: Sequence[str], out: Path, allow_urls: bool = False) -> list[Source]:
    """All images and videos that `texts` name, each once, in their order.

    Folders are read with those in them, hidden ones excepted; of folders and globs, images are taken, and of
    globs videos, too. Nothing below `out` is a source: it holds results.

    Args:
        texts: paths, globs, http(s) URLs of images, or "camera:0".
        out: where the results will be.
        allow_urls: whether URLs may be fetched.

    Raises:
        UserError: a text names nothing that can be a source, or only what is below `out`.
    """
    found: dict[str, tuple[Kind, str, PurePosixPath]] = {}
    for text in texts:
        for kind, place, file in _expand(text, out, allow_urls):
            key = f"{kind}:{place}" if kind in ("url", "camera") else str(Path(place).resolve())
            found.setdefault(key, (kind, place, file))
    names = _different_names([(kind, file) for kind, _, file in found.values()])
    return [
        Source(kind, place, name, _printable(str(file)))
        for (kind, place, file), name in zip(found.values(), names, strict=True)
    ]


def _expand(text: str, out: Path, allow_urls: bool) -> Iterator[tuple[Kind, str, PurePosixPath]]:
    """Kind, place and name with suffix of what one text names."""
    if camera := _CAMERA.fullmatch(text):
        yield "camera", camera[1], PurePosixPath(f"camera-{camera[1]}")
    elif _URL.match(text):
        yield "url", text, _url_name(text, allow_urls)
    else:
        yield from _files(text, out)


def _url_name(text: str, allow_urls: bool) -> PurePosixPath:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise UserError(f"{text}: no valid URL ({error}); correct it") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise UserError(f"{text}: URLs of images begin with http:// or https://")
    if not allow_urls:
        raise UserError(f"{text}: a URL is fetched only with --allow-urls")
    return PurePosixPath(PurePosixPath(unquote(parts.path)).name or parts.hostname or "image")


def _files(text: str, out: Path) -> Iterator[tuple[Kind, str, PurePosixPath]]:
    path = expand_home(text)
    if path.is_dir():
        found = list(_images_below(path))
        needed = f"no image there ({', '.join(IMAGE_SUFFIXES)})"
    elif path.is_file():
        found, needed = [(path, path.name)], ""
    elif _GLOB.search(text):
        found, needed = list(_matches(str(path))), "no image or video matches"
    else:
        raise UserError(f"{text}: no such file or folder")
    results = out.resolve()
    sources = [(file, name) for file, name in found if not file.resolve().is_relative_to(results)]
    if found and not sources:
        raise UserError(f"--out {out}: {text} is in it; name another folder, where results replace no source")
    if not found:
        raise UserError(f"{text}: {needed}")
    if len(sources) < len(found):
        log.info("%s: %d files below --out %s are results, not sources", text, len(found) - len(sources), out)
    for file, name in sources:
        kind: Kind = "video" if file.suffix.lower() in VIDEO_SUFFIXES else "image"
        yield kind, str(file), PurePosixPath(name)


def _images_below(folder: Path) -> Iterator[tuple[Path, str]]:
    """The images of a folder and those in it, also of formats that are not read, by path relative to it."""
    for base, folders, files in os.walk(folder, onerror=_fail):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(files):
            file = Path(base, name)
            known = file.suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_IMAGE_SUFFIXES)
            if known and not is_hidden(name) and file.is_file():
                yield file, file.relative_to(folder).as_posix()


def _fail(error: OSError) -> None:
    raise error


def _matches(pattern: str) -> Iterator[tuple[Path, str]]:
    """The images and videos that match a glob, and the images of folders that do."""
    # Path.glob takes hidden files, too.
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        path = Path(match)
        if path.is_dir():
            yield from _images_below(path)
        elif path.suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
            yield path, path.name


def _different_names(files: Sequence[tuple[Kind, PurePosixPath]]) -> list[str]:
    """Names without suffix, numbered where they would be equal, in upper or lower case.

    A video's name is not that of a folder either, since its frames' names begin with it. CLASSES is taken.
    """
    stems = [_without_suffix(file) for _, file in files]
    folders = {str(parent).casefold() for stem in stems for parent in PurePosixPath(stem).parents}
    taken = {CLASSES}
    last: Counter[str] = Counter()
    names = []
    for (kind, _), stem in zip(files, stems, strict=True):
        name, used = stem, taken if kind in ("image", "url") else taken | folders
        while name.casefold() in used:
            last[stem] += 1
            name = f"{stem}-{last[stem] + 1}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _without_suffix(file: PurePosixPath) -> str:
    stem = _printable(file.stem).encode()[:_LONGEST].decode(errors="ignore")
    return "/".join([*map(_printable, file.parent.parts), stem])


def _printable(text: str) -> str:
    """A text that can be in any table: names of files may hold line breaks, or bytes that are no text."""
    return "".join(letter if letter.isprintable() else "_" for letter in text)


def count_images(sources: Iterable[Source]) -> int | None:
    """Their number; None if there is a video, which does not reliably tell it."""
    kinds = [source.kind for source in sources]
    return None if {"video", "camera"} & set(kinds) else len(kinds)
