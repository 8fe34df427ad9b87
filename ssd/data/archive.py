"""Unpacking tar archives that may be damaged or hostile."""

import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ssd.errors import UserError


def unpack(archive: Path, folder: Path, wanted: Sequence[str]) -> int:
    """Unpack the files of `archive` that lie directly in a folder of `wanted`; return their number.

    `wanted` names ends of paths: "ImageSets/Main" takes VOCdevkit/VOC2007/ImageSets/Main/test.txt.
    Every entry is judged before the first byte is written, the unwanted ones too. Files get plain
    permissions; owners and modes of the archive are not applied.

    Raises:
        UserError: not an uncompressed tar, cut short, an entry that leads out of `folder`, an entry
            that is neither file nor folder, nothing wanted in it, or `folder` cannot be written.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            entries = tar.getmembers()
            _check_end(archive, tar.offset)
            for entry in entries:
                _check_entry(archive, entry, folder)
            files = [entry for entry in entries if entry.isfile() and _is_in(entry.name, wanted)]
            if not files:
                raise UserError(f"{archive}: holds no file in {', '.join(wanted)}; not the archive expected")
            for entry in tqdm(files, f"unpacking {archive.name}", unit="file", leave=False, disable=None):
                tar.extract(entry, folder, set_attrs=False, filter="data")
    except tarfile.TarError as error:
        raise UserError(f"{archive}: not a whole tar archive ({error}); delete it and run again") from None
    except OSError as error:
        problem = error.strerror or error
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {problem}") from None
    return len(files)


def _check_end(archive: Path, offset: int) -> None:
    """A tar ends with a block of zeros; tarfile takes a missing or garbled header for the end as well."""
    with archive.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no valid entry and no end mark at byte {offset:,}")


def _check_entry(archive: Path, entry: tarfile.TarInfo, folder: Path) -> None:
    """Stricter than tarfile's "data" filter: also refused are links of any kind and absolute names."""
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts or "\0" in entry.name:
        raise UserError(f"{archive}: entry {entry.name!r} leads out of the folder; nothing was unpacked")
    if not (entry.isfile() or entry.isdir()):
        raise UserError(f"{archive}: entry {entry.name!r} is no plain file or folder; nothing was unpacked")
    try:
        tarfile.data_filter(entry, str(folder))
    except tarfile.FilterError as error:
        raise UserError(f"{archive}: entry refused: {error}; nothing was unpacked") from None


def _is_in(name: str, wanted: Sequence[str]) -> bool:
    parent = f"/{PurePosixPath(name).parent}"
    return any(parent.endswith(f"/{end}") for end in wanted)
