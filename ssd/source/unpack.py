"""Unpacks archives that may be damaged or malicious: tar by folder names, zip by the files' paths.

Every entry is checked before the first byte is written, unwanted ones included. Only regular files are
written, with default permissions: no links, and none of the archive's owners and modes.
"""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ssd.errors import UserError

_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError)
"""What zipfile raises for a damaged archive, and for a compression method that it does not support."""


def unpack_tar(archive: Path, folder: Path, wanted: Sequence[str]) -> int:
    """Unpack the files of `archive` that are directly in a folder of `wanted`; return their number.

    `wanted` holds ends of folder paths: "ImageSets/Main" matches VOCdevkit/VOC2007/ImageSets/Main/test.txt.

    A tar truncated between two entries cannot be distinguished from a complete one (the closing zeros
    are optional in practice), so verify its digest first.

    Raises:
        UserError: not an uncompressed tar, truncated, an entry whose path or link points outside `folder`, a
            device, a wanted entry that is not a regular file, no wanted file, or `folder` cannot be written.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            entries = tar.getmembers()
            _check_tar_end(archive, tar.offset)
            for entry in entries:
                _check_tar_entry(archive, entry, folder, wanted)
            files = [entry for entry in entries if entry.isfile() and _is_in(entry.name, wanted)]
            if not files:
                raise UserError(f"{archive}: holds no file in {', '.join(wanted)}; not the archive expected")
            folder.mkdir(parents=True, exist_ok=True)
            for entry in tqdm(files, f"unpacking {archive.name}", unit="file", leave=False, disable=None):
                tar.extract(entry, folder, filter=_plain)
    except tarfile.TarError as error:
        raise UserError(f"{archive}: not a whole tar archive ({error}); delete it and run again") from None
    except OSError as error:
        problem = error.strerror or error
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {problem}") from None
    return len(files)


def unpack_zip(
    archive: Path, folder: Path, wanted: Callable[[PurePosixPath], bool], needed: str = "file that is needed"
) -> int:
    """Unpack the files of `archive` that are `wanted`; return their number.

    No file is written beyond its declared size; CRCs are checked while reading.

    Args:
        archive: the zip.
        folder: is there.
        wanted: whether to unpack a file, given its path in the archive.
        needed: what the archive must hold, for the message where nothing is wanted.

    Raises:
        UserError: not a zip, truncated, damaged or encrypted, an entry whose path points outside `folder` or
            that is a link, no wanted file, or `folder` cannot be written or lacks space.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            for entry in entries:
                _check_zip_entry(archive, entry)
            files = [
                entry for entry in entries if not entry.is_dir() and wanted(PurePosixPath(entry.filename))
            ]
            if not files:
                raise UserError(f"{archive}: holds no {needed}; not the archive expected")
            _check_zip_files(archive, folder, files)
            for entry in tqdm(files, f"unpacking {archive.name}", unit="file", leave=False, disable=None):
                _write_zip_entry(packed, entry, folder / PurePosixPath(entry.filename))
    except UserError:
        raise
    except OSError as error:
        problem = error.strerror or error
        raise UserError(f"{archive}: cannot be unpacked into {folder}: {problem}") from None
    except _ZIP_DAMAGE as error:
        raise UserError(f"{archive}: not a whole zip archive ({error}); delete it and run again") from None
    return len(files)


def matches(patterns: Sequence[str], path: PurePosixPath) -> bool:
    """Whether the whole `path` matches one of the glob patterns, in which * does not match a slash."""
    return any(len(path.parts) == pattern.count("/") + 1 and path.match(pattern) for pattern in patterns)


def _check_tar_end(archive: Path, offset: int) -> None:
    """Check that zeros or nothing follow the entries; tarfile accepts any garbage as the end of a tar."""
    with archive.open("rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no valid entry at byte {offset:,}")


def _check_tar_entry(archive: Path, entry: tarfile.TarInfo, folder: Path, wanted: Sequence[str]) -> None:
    """Reject paths and links that point outside the folder, devices, and wanted entries that are links."""
    refusal = f"{archive}: entry {entry.name!r} is refused, nothing was unpacked"
    try:
        tarfile.data_filter(entry, str(folder))
    except tarfile.FilterError as error:
        raise UserError(f"{refusal}: {error}") from None
    if not (entry.isfile() or entry.isdir()) and _is_in(entry.name, wanted):
        raise UserError(f"{refusal}: it is neither file nor folder")


def _plain(entry: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """tarfile's data filter, with mode 0644."""
    return tarfile.data_filter(entry, folder).replace(mode=0o644, deep=False)


def _is_in(name: str, wanted: Sequence[str]) -> bool:
    parent = f"/{PurePosixPath(name).parent}"
    return any(parent.endswith(f"/{end}") for end in wanted)


def _check_zip_entry(archive: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename  # as stored; zipfile truncates filename at a zero byte
    path = PurePosixPath(name)
    refusal = f"{archive}: entry {name!r} is refused, nothing was unpacked"
    if path.is_absolute() or ".." in path.parts or any(character in name for character in "\0\\"):
        raise UserError(f"{refusal}: its path points outside the folder")
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 if the archive was made on another system than Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(f"{refusal}: it is neither file nor folder")
    if entry.flag_bits & 1:
        raise UserError(f"{refusal}: it is encrypted")


def _check_zip_files(archive: Path, folder: Path, files: Sequence[zipfile.ZipInfo]) -> None:
    if len({PurePosixPath(entry.filename) for entry in files}) < len(files):
        raise UserError(
            f"{archive}: has two files of one name; nothing was unpacked, delete it and run again"
        )
    needed, free = sum(entry.file_size for entry in files), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{archive}: needs {needed:,} bytes in {folder}, where {free:,} are free; make room")


def _write_zip_entry(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Write a regular file; zipfile stops at the declared size and checks the CRC there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(entry) as content, target.open("wb") as file:
        shutil.copyfileobj(content, file)
