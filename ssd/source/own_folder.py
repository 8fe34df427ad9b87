"""Copies the needed files of a folder: the user's own data set, or a public one unpacked by hand.

Hidden files and folders are skipped. A symbolic link to a file is copied as the file, which must be in the
same folder.
"""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ssd.errors import UserError
from ssd.files import expand_home
from ssd.layouts import MASK_FOLDERS, is_data_file, is_hidden
from ssd.source.unpack import unpack_zip

log = logging.getLogger(__name__)


def existing_folder(key: str, path: str, root: Path, needed: str) -> Path:
    """The folder that a parameter names; a relative path is resolved against `root`, `~` is the home folder.

    Raises:
        UserError: the folder does not exist; the message says what is `needed`.
    """
    folder = root / expand_home(path)
    if not folder.is_dir():
        raise UserError(f"{path} is not a folder (looked for {folder}); needed is {needed}", key=key)
    return folder


def copy_folder(key: str, source: Path, target: Path, is_wanted: Callable[[PurePosixPath], bool]) -> int:
    """Copy the wanted files below `source` to the same relative paths in `target`; return their number.

    Args:
        key: the parameter that names `source`, for messages.
        is_wanted: whether to copy a file, given its path relative to `source`.

    Raises:
        UserError: a symbolic link points outside `source` or to a folder, no file is wanted, or a file
            cannot be read or written.
    """
    with _copying(key, source):
        files = wanted_files(key, source, is_wanted)
        _copy(key, source, target, files)
    return len(files)


def find_own(path: str, root: Path, key: str = "data.path") -> Path:
    """The user's own data that the setting `key` names: a folder, or the zip of one.

    Raises:
        UserError: there is neither.
    """
    place = root / expand_home(path)
    if place.suffix.lower() == ".zip" and place.is_file():
        return place
    return existing_folder(key, path, root, needed="a folder with images and annotations, or its .zip")


def is_own(name: PurePosixPath) -> bool:
    """Whether a file of the user's own data, by its path in it, may be an image, an annotation or a list."""
    folders = name.parts[:-1]
    hidden = any(is_hidden(part) or part in MASK_FOLDERS for part in folders) or is_hidden(name.name)
    return is_data_file(name) and not hidden


def copy_own(source: Path, target: Path, key: str = "data.path") -> None:
    """Copy or unpack the user's own data to `target`; the log says what else is there.

    Args:
        key: the setting that names `source`, for messages.

    Raises:
        UserError: as `copy_folder` and `ssd.source.unpack.unpack_zip`.
    """
    others: Counter[str] = Counter()

    def is_wanted(name: PurePosixPath) -> bool:
        if not is_own(name):
            others[name.suffix.lower() or name.name] += 1
            return False
        return True

    if source.is_file():
        unpack_zip(source, target, is_wanted, "image")
    else:
        copy_folder(key, source, target, is_wanted)
    if others:
        kinds = ", ".join(f"{num} {kind}" for kind, num in sorted(others.items()))
        log.info("%s: not copied, as neither images nor annotations: %s", source, kinds)


def wanted_files(key: str, source: Path, is_wanted: Callable[[PurePosixPath], bool]) -> list[PurePosixPath]:
    """Paths, relative to `source`, of the files that `copy_folder` copies.

    Raises:
        UserError: a symbolic link points to a folder, or no file is wanted.
        OSError: a folder cannot be read.
    """
    files = [name for name in _files_below(key, source) if is_wanted(name)]
    if not files:
        raise UserError(f"{source} holds nothing of the data set", key=key)
    return files


@contextmanager
def _copying(key: str, source: Path) -> Iterator[None]:
    """Convert an OSError into a one-line UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{source} cannot be copied: {error}", key=key) from None


def _copy(key: str, source: Path, target: Path, files: Sequence[PurePosixPath]) -> None:
    """Copy `files` to the same relative paths in `target`; a symbolic link out of `source` is an error."""
    top = os.path.realpath(source)
    for name in files:
        if not Path(os.path.realpath(source / name)).is_relative_to(top):
            raise UserError(f"{name} is a link out of {source}; put the file there", key=key)
    for name in tqdm(files, f"copying {source.name}", unit="file", leave=False, disable=None):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _files_below(key: str, source: Path) -> Iterator[PurePosixPath]:
    """Paths of the files below `source`, relative to it, sorted within each folder."""
    for folder, names, files in os.walk(source, onerror=_fail):
        names[:] = sorted(name for name in names if not name.startswith("."))
        here = PurePosixPath(Path(folder).relative_to(source).as_posix())
        for name in names:
            if Path(folder, name).is_symlink():
                raise UserError(f"{here / name} is a link to a folder; put the folder there", key=key)
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def _fail(error: OSError) -> None:
    raise error
