"""Unpacks archives that may be damaged or malicious: tar by folder names, zip by a rule on paths.

Every entry is checked before the first byte is written, unwanted ones included. Only regular files are
written, with default permissions: no links, and none of the archive's owners and modes.
"""

import lzma
import os.path
import reprlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ssd.errors import UserError

MAX_COMPRESSION = 1032
"""The most that deflate compresses; what unpacks to more was made to fill a disk."""

MAX_NAME = 255
"""Bytes of a file's name on all usual file systems."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = 200

_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)
"""What zipfile raises for a damaged archive, and for a compression method that it does not support."""

_TAR_DAMAGE = (tarfile.TarError, EOFError, ValueError, IndexError, OverflowError, RecursionError, MemoryError)
"""What tarfile raises while it reads damaged headers; they may declare more bytes than there is memory."""


def unpack_tar(archive: Path, folder: Path, wanted: Sequence[str]) -> int:
    """Unpack the files of `archive` that are directly in a folder of `wanted`; return their number.

    `wanted` holds ends of folder paths: "ImageSets/Main" matches VOCdevkit/VOC2007/ImageSets/Main/test.txt.
    Of two files of one name the later one is taken, as tar does.

    A tar truncated between two entries cannot be distinguished from a complete one (the closing zeros
    are optional in practice), so verify its digest first.

    Raises:
        UserError: not an uncompressed tar, truncated, an entry whose path or link points outside `folder`, a
            device, a wanted entry that is not a regular file, no wanted file, or `folder` cannot be written
            or lacks space.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            files = _wanted_of_tar(archive, tar, folder, wanted)
            if not files:
                raise UserError(f"{archive}: holds no file in {', '.join(wanted)}; not the archive expected")
            folder.mkdir(parents=True, exist_ok=True)
            _check_room(archive, folder, [entry.size for entry in files])
            for entry in tqdm(files, f"unpacking {archive.name}", unit="file", leave=False, disable=None):
                tar.extract(entry, folder, filter=_plain)
    except UserError:
        raise
    except OSError as error:
        raise UserError(_failure(archive, folder, error)) from None
    except _TAR_DAMAGE as error:
        raise UserError(_damage(archive, "tar", error)) from None
    return len(files)


def unpack_zip(
    archive: Path, folder: Path, wanted: Callable[[PurePosixPath], bool], needed: str = "file that is needed"
) -> int:
    """Unpack the files of `archive` that are `wanted`; return their number.

    Backslashes in names separate folders, as some programs of Windows write them. No file is written beyond
    its declared size; CRCs are checked while reading.

    Args:
        archive: the zip.
        folder: is there, and none of the files in it.
        wanted: whether to unpack a file, given its path in the archive: relative, without "..".
        needed: what the archive must hold, for the message where nothing is wanted.

    Raises:
        UserError: not a zip, truncated, damaged or encrypted, an entry whose path points outside `folder` or
            that is a link, names that cannot be written, no wanted file, or `folder` cannot be written or
            lacks space.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            files = _wanted_of_zip(archive, packed, wanted)
            if not files:
                raise UserError(f"{archive}: holds no {needed}; not the archive expected")
            sizes = [entry.file_size for entry in files.values()]
            if sum(sizes) > MAX_COMPRESSION * archive.stat().st_size:
                raise UserError(
                    f"{archive}: would unpack to {sum(sizes):,} bytes, more than {MAX_COMPRESSION} times its "
                    "own size; nothing was unpacked"
                )
            _check_room(archive, folder, sizes)
            for path in tqdm(files, f"unpacking {archive.name}", unit="file", leave=False, disable=None):
                _write_zip_entry(packed, files[path], folder / path)
    except UserError:
        raise
    except OSError as error:
        if error.errno is None:  # bz2's and zipfile's own
            raise UserError(_damage(archive, "zip", error)) from None
        raise UserError(_failure(archive, folder, error)) from None
    except _ZIP_DAMAGE as error:
        raise UserError(_damage(archive, "zip", error)) from None
    return len(files)


def matches(patterns: Sequence[str], path: PurePosixPath) -> bool:
    """Whether the whole `path` matches one of the glob patterns, in which * does not match a slash."""
    return any(len(path.parts) == pattern.count("/") + 1 and path.match(pattern) for pattern in patterns)


def _wanted_of_tar(
    archive: Path, tar: tarfile.TarFile, folder: Path, wanted: Sequence[str]
) -> list[tarfile.TarInfo]:
    """Read and check all entries; the wanted files."""
    entries = tar.getmembers()
    _check_tar_end(archive, tar.offset)
    for entry in entries:
        _check_tar_entry(archive, entry, folder, wanted)
    files = [entry for entry in entries if entry.isfile() and _is_in(entry.name, wanted)]
    return list({os.path.normpath(entry.name.lstrip("/")): entry for entry in files}.values())


def _check_tar_end(archive: Path, offset: int) -> None:
    """Check that zeros or nothing follow the entries; tarfile accepts any garbage as the end of a tar."""
    with archive.open("rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no valid entry at byte {offset:,}")


def _check_tar_entry(archive: Path, entry: tarfile.TarInfo, folder: Path, wanted: Sequence[str]) -> None:
    """Reject paths and links that point outside the folder, devices, and wanted entries that are links."""
    try:
        tarfile.data_filter(entry, str(folder))
    except tarfile.FilterError as error:
        raise _refused(archive, entry.name, str(error)) from None
    if _is_in(entry.name, wanted):
        if not (entry.isfile() or entry.isdir()):
            raise _refused(archive, entry.name, "it is neither file nor folder")
        if entry.issparse():
            raise _refused(archive, entry.name, "it is sparse")


def _plain(entry: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """tarfile's data filter, with mode 0644."""
    return tarfile.data_filter(entry, folder).replace(mode=0o644, deep=False)


def _is_in(name: str, wanted: Sequence[str]) -> bool:
    parent = f"/{PurePosixPath(name).parent}"
    return any(parent.endswith(f"/{end}") for end in wanted)


def _wanted_of_zip(
    archive: Path, packed: zipfile.ZipFile, wanted: Callable[[PurePosixPath], bool]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Check all entries; the wanted files by their path."""
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for entry in packed.infolist():
        name = _zip_name(entry)
        path = PurePosixPath(name)
        _check_zip_entry(archive, entry, name)
        if name.endswith("/") or not wanted(path):
            continue
        if path in files:
            raise _refused(archive, name, "two files of one name")
        if max(len(part.encode()) for part in path.parts) > MAX_NAME:
            raise _refused(archive, name, f"its name is longer than {MAX_NAME} bytes")
        files[path] = entry
    for path in files:
        if not files.keys().isdisjoint(path.parents):
            raise _refused(archive, str(path), "it lies below a file")
    return files


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """The name with slashes between folders.

    Names not marked as UTF-8 are UTF-8 all the same if they can be, as macOS writes them; else code page 437.
    """
    name = entry.orig_filename  # as stored; zipfile truncates filename at a zero byte
    if not entry.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _check_zip_entry(archive: Path, entry: zipfile.ZipInfo, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _refused(archive, name, "its path points outside the folder")
    if any(ord(character) < 32 for character in name) or (path.name == "" and not name.endswith("/")):
        raise _refused(archive, name, "that is no name of a file")
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 if the archive was made on another system than Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(archive, name, "it is neither file nor folder")
    if entry.flag_bits & 1:
        raise _refused(archive, name, "it is encrypted")


def _write_zip_entry(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Write a regular file; zipfile stops at the declared size and checks the CRC there.

    Raises:
        FileExistsError: the file system takes the name for that of another file, as ones without case do.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(entry) as content, target.open("xb") as file:
        shutil.copyfileobj(content, file)


def _check_room(archive: Path, folder: Path, sizes: Sequence[int]) -> None:
    needed, free = sum(sizes), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{archive}: needs {needed:,} bytes in {folder}, where {free:,} are free; make room")


def _refused(archive: Path, name: str, reason: str) -> UserError:
    return UserError(f"{archive}: entry {_SHORT.repr(name)} is refused, nothing was unpacked: {reason[:300]}")


def _failure(archive: Path, folder: Path, error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    return f"{archive}: cannot be unpacked into {folder}: {error.strerror or error}{place}"


def _damage(archive: Path, kind: str, error: BaseException) -> str:
    problem = " ".join(str(error).split()) or type(error).__name__
    return f"{archive}: not a whole {kind} archive ({problem[:200]}); it has to be fetched or packed again"
