"""Disk space: what the data set of `data.source` takes in every folder that the pipeline fills with it.

DVC keeps each output twice, in its place and in its cache, unless the file system shares the blocks of copies
or DVC's cache.type begins with a kind of link.
"""

import configparser
import os
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ssd.errors import UserError
from ssd.layouts import IMAGE_SUFFIXES
from ssd.params import DataParams, PreprocessParams
from ssd.preflight.finding import Finding
from ssd.source.download import archive_path
from ssd.source.own_folder import find_own, is_own
from ssd.source.public_sets import ARCHIVES

COPYING = ("ext2", "ext3", "ext4", "tmpfs", "vfat", "exfat", "f2fs")
"""File systems that cannot share blocks between files (reflinks)."""

SHAPES_BYTES_PER_PIXEL = 0.65
"""Of the JPEGs of `shapes`, at most: 0.61 at 64 pixels, 0.33 at 192, 0.25 at 512."""

SHAPES_ANNOTATION_BYTES = 1100
"""Of the annotation of one image of `shapes`, at most: 970 on average."""

MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Places:
    """The folders that the pipeline fills.

    root: the main workspace, with DVC's cache and the archives; raw, tensors: what download and preprocess
    of the running experiment write.
    """

    root: Path
    raw: Path
    tensors: Path


@dataclass(frozen=True)
class Need:
    """Bytes that are still to be written into a folder, which may not exist yet.

    is_estimate: they may turn out to be fewer, so that too little space for them is only a warning.
    """

    name: str
    folder: Path
    num_bytes: int
    is_estimate: bool = False


def list_needs(data: DataParams, preprocess: PreprocessParams, places: Places) -> list[Need]:
    """What download and preprocess will write, at the moment when it is most; present parts do not count.

    Sizes of tensors are estimates: each image as it is, or at one byte per pixel where it will be smaller.

    Raises:
        UserError: the user's own folder is missing or in another layout.
    """
    present = (places.raw / data.source).is_dir()
    if present and any(places.tensors.rglob("*.safetensors")):
        return []
    archives = 0 if present else _missing_archives(data, places.root)
    raw, tensors = _sizes(data, preprocess, places)
    raw = 0 if present else raw
    cache = dvc_cache(places.root)
    # preprocess packs the images into a temporary file first, which is gone when DVC copies the tensors.
    packed, cached = tensors, raw + tensors
    if _same_disk(cache, places.tensors):
        packed, cached = (0, cached) if copies(places) else (tensors, 0)
    needs = [
        Need("data.archives", places.root / Path(data.archives).expanduser(), archives),
        Need(str(places.raw), places.raw, raw),
        Need(str(places.tensors), places.tensors, tensors + packed, is_estimate=True),
        Need("DVC's cache", cache, cached, is_estimate=True),
    ]
    return [need for need in needs if need.num_bytes > 0]


def check_space(needs: Sequence[Need]) -> list[Finding]:
    """Compare the needs with the free space of each file system; fatal if those alone that are no estimates
    exceed it."""
    disks: dict[int, list[Need]] = defaultdict(list)
    for need in needs:
        disks[existing(need.folder).stat().st_dev].append(need)
    findings = []
    for group in disks.values():
        needed, free = sum(need.num_bytes for need in group), free_bytes(group[0].folder)
        if needed > free:
            parts = ", ".join(f"{need.num_bytes / 1e9:.2f} in {need.name}" for need in group)
            text = (
                f"about {needed / 1e9:.2f} GB of disk space are needed ({parts}), {free / 1e9:.2f} GB are "
                f"free on the disk of {existing(group[0].folder)}; make room, or move these folders"
            )
            certain = sum(need.num_bytes for need in group if not need.is_estimate)
            findings.append(Finding("data.source", text, fatal=certain > free))
    return findings


def free_bytes(folder: Path) -> int:
    """Free space for a folder that may not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _missing_archives(data: DataParams, root: Path) -> int:
    """Bytes that are still to be downloaded; an interrupted download goes on where it ended."""
    total = 0
    for archive in ARCHIVES.get(data.source, ()):
        path = archive_path(archive, data, root)
        part = path.with_name(f".{path.name}.part")
        if not path.exists():
            total += archive.file.num_bytes - (part.stat().st_size if part.exists() else 0)
    return total


def _sizes(data: DataParams, preprocess: PreprocessParams, places: Places) -> tuple[int, int]:
    """Bytes of the data set as download writes it and, at most, of its tensors."""
    if data.source == "shapes":
        count = data.shapes_train + data.shapes_val + data.shapes_test
        images = int(count * data.shapes_side**2 * SHAPES_BYTES_PER_PIXEL)
        return images + count * SHAPES_ANNOTATION_BYTES, images
    if data.source in ARCHIVES:
        size = sum(archive.num_unpacked or archive.file.num_bytes for archive in ARCHIVES[data.source])
        return size, size
    sizes = list(_own_sizes(data, places))
    pixels = preprocess.max_side**2
    return sum(size for _, size in sizes), sum(min(size, pixels) for is_image, size in sizes if is_image)


def _own_sizes(data: DataParams, places: Places) -> Iterator[tuple[bool, int]]:
    """Of each file of the user's own data that is copied: whether it is an image, and its bytes."""
    copied = places.raw / data.source
    source = copied if copied.is_dir() else find_own(data.path, places.root)
    try:
        if source.is_file():
            with zipfile.ZipFile(source) as packed:
                sizes = [(entry.filename, entry.file_size) for entry in packed.infolist()]
        else:
            sizes = [(str(path), path.stat().st_size) for path in source.rglob("*.*") if path.is_file()]
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{source} cannot be read: {error}", key="data.path") from None
    for name, size in sizes:
        if is_own(PurePosixPath(name).relative_to(source) if source.is_dir() else PurePosixPath(name)):
            yield PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES, size


def dvc_cache(root: Path) -> Path:
    """The folder of DVC's cache by .dvc/config and .dvc/config.local."""
    folder = _dvc_setting(root, "dir", "cache")
    return root / ".dvc" / Path(folder).expanduser()


def copies(places: Places) -> bool:
    """Whether DVC's cache, on the same disk as the outputs, takes space of its own."""
    kind = _dvc_setting(places.root, "type", "reflink").split(",")[0].strip()
    return kind == "copy" or (kind == "reflink" and file_system(existing(places.raw)) in COPYING)


def _dvc_setting(root: Path, name: str, default: str) -> str:
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read([root / ".dvc/config", root / ".dvc/config.local"], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return default  # DVC itself reports what is wrong with its file
    return config.get("cache", name, fallback=default).strip("'\" ")


def _same_disk(one: Path, other: Path) -> bool:
    return existing(one).stat().st_dev == existing(other).stat().st_dev


def file_system(folder: Path) -> str:
    """The type of a folder's file system on Linux, as ext4; "" where it cannot be told."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = MOUNTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    # See proc(5): the third field is major:minor; after " - " comes the type.
    return next((line.split(" - ")[1].split()[0] for line in lines if line.split()[2] == number), "")
