"""Unpacking archives that may be damaged or hostile: tar by folders, zip by patterns.

Every entry is judged before the first byte is written, the unwanted ones too. Only plain files are ever
written, with plain permissions: no links, none of the archive's owners and modes.
"""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ssd.errors import UserError

_ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError)
"""What zipfile raises for a damaged archive; NotImplementedError: a method of packing that it lacks."""


def unpack_tar(archive: Path, folder: Path, wanted: Sequence[str]) -> int:
    """Unpack the files of `archive` that lie directly in a folder of `wanted`; return their number.

    `wanted` names ends of paths: "ImageSets/Main" takes VOCdevkit/VOC2007/ImageSets/Main/test.txt.

    A tar that is cut between two entries cannot be told from a whole one (the closing zeros are
    optional in practice), so check its digest before.

    Raises:
        UserError: not an uncompressed tar, cut short, an entry that leads or links out of `folder`, a
            device, a wanted entry that is no plain file, nothing wanted, or `folder` cannot be written.
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


def unpack_zip(archive: Path, folder: Path, wanted: Sequence[str]) -> int:
    """Unpack the files of `archive` whose whole path fits a pattern of `wanted`; return their number.

    `wanted` holds patterns such as "annotations/instances_*.json", in which * stays in one folder. No file
    is written longer than the archive says it is; CRCs are compared as they are read.

    Raises:
        UserError: not a zip, cut short, damaged or encrypted, an entry that leads out of `folder` or is a
            link, nothing wanted, or `folder` cannot be written or has not the room.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = packed.infolist()
            for entry in entries:
                _check_zip_entry(archive, entry)
            files = [
                entry
                for entry in entries
                if not entry.is_dir() and is_wanted(PurePosixPath(entry.filename), wanted)
            ]
            _check_zip_files(archive, folder, files, wanted)
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


def is_wanted(path: PurePosixPath, wanted: Sequence[str]) -> bool:
    """Whether the whole of `path` fits one of the patterns, part by part."""
    return any(len(path.parts) == pattern.count("/") + 1 and path.match(pattern) for pattern in wanted)


def _check_tar_end(archive: Path, offset: int) -> None:
    """After its entries a tar has a block of zeros, or nothing; tarfile takes any garbage for the end."""
    with archive.open("rb") as file:
        file.seek(offset)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"no valid entry at byte {offset:,}")


def _check_tar_entry(archive: Path, entry: tarfile.TarInfo, folder: Path, wanted: Sequence[str]) -> None:
    """Refuse what leads or links out of the folder, devices, and links in place of wanted files."""
    refusal = f"{archive}: entry {entry.name!r} is refused, nothing was unpacked"
    try:
        tarfile.data_filter(entry, str(folder))
    except tarfile.FilterError as error:
        raise UserError(f"{refusal}: {error}") from None
    if not (entry.isfile() or entry.isdir()) and _is_in(entry.name, wanted):
        raise UserError(f"{refusal}: it is neither file nor folder")


def _plain(entry: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """As tarfile's filter for data, with plain permissions."""
    return tarfile.data_filter(entry, folder).replace(mode=0o644, deep=False)


def _is_in(name: str, wanted: Sequence[str]) -> bool:
    parent = f"/{PurePosixPath(name).parent}"
    return any(parent.endswith(f"/{end}") for end in wanted)


def _check_zip_entry(archive: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename  # as written; zipfile cuts it at a zero byte
    path = PurePosixPath(name)
    refusal = f"{archive}: entry {name!r} is refused, nothing was unpacked"
    if path.is_absolute() or ".." in path.parts or any(character in name for character in "\0\\"):
        raise UserError(f"{refusal}: it leads out of the folder")
    kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive comes from another system than Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(f"{refusal}: it is neither file nor folder")
    if entry.flag_bits & 1:
        raise UserError(f"{refusal}: it is encrypted")


def _check_zip_files(
    archive: Path, folder: Path, files: Sequence[zipfile.ZipInfo], wanted: Sequence[str]
) -> None:
    if not files:
        raise UserError(f"{archive}: holds no {' or '.join(wanted)}; not the archive expected")
    if len({PurePosixPath(entry.filename) for entry in files}) < len(files):
        raise UserError(
            f"{archive}: has two files of one name; nothing was unpacked, delete it and run again"
        )
    needed, free = sum(entry.file_size for entry in files), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{archive}: needs {needed:,} bytes in {folder}, where {free:,} are free; make room")


def _write_zip_entry(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """The bytes of a plain file; zipfile stops at the declared length and compares the CRC there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(entry) as content, target.open("wb") as file:
        shutil.copyfileobj(content, file)
