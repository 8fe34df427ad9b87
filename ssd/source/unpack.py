"""Unpacking tar archives that may be damaged or hostile."""

import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ssd.errors import UserError


def unpack(archive: Path, folder: Path, wanted: Sequence[str]) -> int:
    """Unpack the files of `archive` that lie directly in a folder of `wanted`; return their number.

    `wanted` names ends of paths: "ImageSets/Main" takes VOCdevkit/VOC2007/ImageSets/Main/test.txt.
    Every entry is judged before the first byte is written, the unwanted ones too. Only plain files are
    ever written, with plain permissions: no links, none of the archive's owners and modes.

    A tar that is cut between two entries cannot be told from a whole one (the closing zeros are
    optional in practice), so check its digest before.

    Raises:
        UserError: not an uncompressed tar, cut short, an entry that leads or links out of `folder`, a
            device, a wanted entry that is no plain file, nothing wanted, or `folder` cannot be written.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            entries = tar.getmembers()
            _check_end(archive, tar.offset)
            for entry in entries:
                _check_entry(archive, entry, wanted)
            files = [entry for entry in entries if entry.isfile() and _is_in(entry.name, wanted)]
            if not files:
                raise UserError(f"{archive}: holds no file in {', '.join(wanted)}; not the archive expected")
            for entry in tqdm(files, f"unpacking {archive.name}", unit="file", leave=False, disable=None):
                _write(tar, entry, folder / PurePosixPath(entry.name))
    except tarfile.TarError as error:
        raise UserError(f"{archive}: not a whole tar archive ({error}); delete it and run again") from None
    except OSError as error:
        problem = error.strerror or error
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {problem}") from None
    return len(files)


def _check_end(archive: Path, offset: int) -> None:
    """After its entries a tar has a block of zeros, or nothing; tarfile takes any garbage for the end."""
    with archive.open("rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no valid entry at byte {offset:,}")


def _check_entry(archive: Path, entry: tarfile.TarInfo, wanted: Sequence[str]) -> None:
    """Refuse what no data set needs; links that stay inside may lie where nothing is taken from."""
    path = PurePosixPath(entry.name)
    refusal = f"{archive}: entry {entry.name!r} is refused, nothing was unpacked"
    if path.is_absolute() or ".." in path.parts or "\0" in entry.name:
        raise UserError(f"{refusal}: it leads out of the folder")
    if entry.isfile() or entry.isdir():
        return
    if not (entry.issym() or entry.islnk()) or _is_in(entry.name, wanted):
        raise UserError(f"{refusal}: it is neither file nor folder")
    # A symbolic link counts from its own folder, a hard link from the root of the archive.
    start = path.parent if entry.issym() else PurePosixPath()
    target = os.path.normpath(start / entry.linkname)
    if target.startswith(("/", "..")):
        raise UserError(f"{refusal}: it links out of the folder")


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    """The bytes of a plain file. Not tarfile's own extraction, whose safe mode Python 3.11.3 lacks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(entry)
    assert content is not None, "a plain file"
    with content, target.open("wb") as file:
        shutil.copyfileobj(content, file)


def _is_in(name: str, wanted: Sequence[str]) -> bool:
    parent = f"/{PurePosixPath(name).parent}"
    return any(parent.endswith(f"/{end}") for end in wanted)
