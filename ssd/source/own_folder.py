"""Copies what the pipeline needs of a folder here: an own data set, or a public one unpacked by hand."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ssd.errors import UserError


def existing_folder(key: str, path: str, root: Path, needed: str) -> Path:
    """The folder that a param names; relative to `root`, `~` is the home folder.

    Raises:
        UserError: it is not there; the message says that `needed` is.
    """
    folder = root / Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"params.yaml: {key}: {path} is not a folder (looked for {folder}); needed is {needed}"
        )
    return folder


def copy_folder(key: str, source: Path, target: Path, is_wanted: Callable[[PurePosixPath], bool]) -> int:
    """Copy the files below `source` whose path in it is wanted to the same place in `target`; their number.

    Hidden files and folders are left out. A link to a file is copied as the file, which must lie in `source`
    as well; links to folders are refused.

    Args:
        key: of params.yaml, for messages.

    Raises:
        UserError: a link leads elsewhere, nothing is wanted, or files are not readable or writable.
    """
    top = os.path.realpath(source)
    try:
        files = [name for name in _plain_files(key, source) if is_wanted(name)]
        for name in files:
            if not Path(os.path.realpath(source / name)).is_relative_to(top):
                raise UserError(f"params.yaml: {key}: {name} is a link out of {source}; put the file there")
        for name in tqdm(files, f"copying {source.name}", unit="file", leave=False, disable=None):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    except OSError as error:
        raise UserError(f"params.yaml: {key}: {source} cannot be copied: {error}") from None
    if not files:
        raise UserError(f"params.yaml: {key}: {source} holds nothing of the data set")
    return len(files)


def _plain_files(key: str, source: Path) -> Iterator[PurePosixPath]:
    """Paths of the files below `source`, relative to it, in order."""
    for folder, names, files in os.walk(source, onerror=_fail):
        names[:] = sorted(name for name in names if not name.startswith("."))
        here = PurePosixPath(Path(folder).relative_to(source).as_posix())
        for name in names:
            if Path(folder, name).is_symlink():
                raise UserError(
                    f"params.yaml: {key}: {here / name} is a link to a folder; put the folder there"
                )
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def _fail(error: OSError) -> None:
    raise error
