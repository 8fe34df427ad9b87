"""Copies the needed files of a folder: the user's own data set, or a public one unpacked by hand.

Hidden files and folders are skipped. A symbolic link to a file is copied as the file, which must be in the
same folder.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ssd.errors import UserError

VOC_FOLDERS = ("JPEGImages", "Annotations", "ImageSets/Main")


def existing_folder(key: str, path: str, root: Path, needed: str) -> Path:
    """The folder that a parameter names; a relative path is resolved against `root`, `~` is the home folder.

    Raises:
        UserError: the folder does not exist; the message says what is `needed`.
    """
    folder = root / Path(path).expanduser()
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


def copy_voc_folder(path: str, root: Path, target: Path) -> None:
    """Check the folder that `data.path` names and copy its images, annotations and lists to `target`.

    Args:
        path: the value of `data.path`; a relative path is resolved against `root`, `~` is the home folder.
        target: is created; contains JPEGImages, Annotations and ImageSets/Main afterwards.

    Raises:
        UserError: the folder is missing, not in VOC layout, without a list for training or not
            readable, or a symbolic link points outside it.
    """
    source = find_voc_folder(path, root)
    with _copying("data.path", source):
        _copy("data.path", source, target, voc_files(source))
        for name in VOC_FOLDERS:
            (target / name).mkdir(parents=True, exist_ok=True)


def find_voc_folder(path: str, root: Path) -> Path:
    """The folder that `data.path` names, in VOC layout with a list for training.

    Raises:
        UserError: it is missing or not in that layout.
    """
    source = existing_folder("data.path", path, root, f"one that holds {', '.join(VOC_FOLDERS)}")
    _check_voc_folders(path, source)
    _check_voc_lists(path, source / "ImageSets/Main")
    return source


def voc_files(source: Path) -> list[PurePosixPath]:
    """Paths, relative to `source`, of the files that `copy_voc_folder` copies."""
    return [file for name in VOC_FOLDERS for file in _files_in(source, name)]


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


def _files_in(source: Path, folder: str) -> list[PurePosixPath]:
    """Paths of the files directly in `source / folder`, relative to `source`, sorted."""
    found = sorted(path for path in (source / folder).iterdir() if not path.name.startswith("."))
    return [PurePosixPath(folder, path.name) for path in found if path.is_file()]


def _fail(error: OSError) -> None:
    raise error


def _check_voc_folders(path: str, source: Path) -> None:
    missing = [name for name in VOC_FOLDERS if not (source / name).is_dir()]
    if missing:
        meant = " or ".join(os.path.normpath(Path(path, near)) for near in _voc_folders_near(source))
        hint = f"; perhaps you meant {meant}" if meant else ""
        raise UserError(
            f"{path} lacks {', '.join(missing)}; needed is a folder that holds "
            f"{', '.join(VOC_FOLDERS)}{hint}",
            key="data.path",
        )


def _check_voc_lists(path: str, lists: Path) -> None:
    if any((lists / name).is_file() for name in ("train.txt", "trainval.txt")):
        return
    found = sorted(file.name for file in lists.glob("[!.]*.txt"))[:5]
    raise UserError(
        f"{path}/ImageSets/Main holds neither train.txt nor trainval.txt "
        f"(found: {', '.join(found) or 'no list'}); needed is one of them, one image id per line",
        key="data.path",
    )


def _voc_folders_near(source: Path) -> list[str]:
    """Folders in VOC layout up to two levels below `source` (at most three), else the one above it."""
    mains = sorted([*source.glob("*/ImageSets/Main"), *source.glob("*/*/ImageSets/Main")])
    below = [main.parent.parent for main in mains if _is_voc_folder(main.parent.parent)]
    if below:
        return [str(folder.relative_to(source)) for folder in below[:3]]
    return [".."] if _is_voc_folder(source / "..") else []


def _is_voc_folder(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in VOC_FOLDERS)
