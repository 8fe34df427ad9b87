"""Puts a data set on disk: from downloaded archives, from the user's own folder, or generated (`shapes`)."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from ssd.errors import UserError
from ssd.fetch import RemoteFile, fetch
from ssd.files import replacing_folder
from ssd.params import DataParams
from ssd.source.own_folder import copy_folder, copy_own, find_own
from ssd.source.public_sets import ARCHIVES, Archive
from ssd.source.shapes import write_shapes
from ssd.source.unpack import matches, unpack_tar, unpack_zip

log = logging.getLogger(__name__)


def download(data: DataParams, raw_folder: Path, root: Path) -> None:
    """Put `data.source` into `raw_folder / data.source`, completely or not at all.

    Without a network, `data.archives` holds the archives of a public data set or, for coco and penn_fudan,
    the folders that they unpack to (annotations, train2017, val2017; PennFudanPed).

    Args:
        data: the `data` section; relative paths are resolved against `root`.
        raw_folder: an earlier copy of this source in it is replaced.
        root: the main workspace, so that experiments in other folders share one folder of archives.

    Raises:
        UserError: a download failed, or an archive or the user's own folder is invalid.
    """
    found = [(archive, _find_archive(archive, data, root)) for archive in ARCHIVES.get(data.source, ())]
    with replacing_folder(raw_folder / data.source) as folder:
        match data.source:
            case "shapes":
                _draw_shapes(data, folder / "VOCdevkit/shapes")
            case "folder" | "voc_dir" | "coco_json" | "yolo_dir":
                copy_own(find_own(data.path, root), folder)
        for archive, path in found:
            _unpack(archive, path, folder)


def _draw_shapes(data: DataParams, folder: Path) -> None:
    write_shapes(
        folder,
        num_train=data.shapes_train,
        num_val=data.shapes_val,
        num_test=data.shapes_test,
        side=data.shapes_side,
        seed=data.shapes_seed,
    )


def archive_path(archive: Archive, data: DataParams, root: Path) -> Path:
    """The unpacked folder of a zip if it exists, else the archive in `data.archives`, there or not."""
    folder = root / Path(data.archives).expanduser()
    if archive.folder and (folder / archive.folder).is_dir():
        return folder / archive.folder
    return folder / archive.file.name


def with_mirrors(file: RemoteFile, mirrors: Sequence[str]) -> RemoteFile:
    """The file with the URLs of `data.mirrors` before its own.

    Raises:
        UserError: a mirror is not an http or https URL.
    """
    for mirror in mirrors:
        if not mirror.startswith(("http://", "https://")):
            raise UserError(f"found {mirror!r}; allowed: http:// or https:// URLs", key="data.mirrors")
    return replace(file, urls=tuple(f"{mirror.rstrip('/')}/{file.name}" for mirror in mirrors) + file.urls)


def _find_archive(archive: Archive, data: DataParams, root: Path) -> Path:
    """The unpacked folder of a zip if it exists, else the archive, downloaded if it is missing."""
    file = with_mirrors(archive.file, data.mirrors)
    path = archive_path(archive, data, root)
    if path.is_dir():
        log.info("%s: the folder %s is used instead", archive.file.name, path)
        return path
    return fetch(file, path.parent, key="data.archives")


def _unpack(archive: Archive, path: Path, folder: Path) -> None:
    """Unpack an archive into `folder`, or copy the folder that it was unpacked to."""
    if archive.folder is None:
        unpack_tar(path, folder, archive.wanted)
    elif path.is_dir():
        wanted = partial(_is_wanted_below, archive.folder, archive.wanted)
        copy_folder("data.archives", path, folder / archive.folder, wanted)
    else:
        unpack_zip(path, folder, partial(matches, archive.wanted), needed=" or ".join(archive.wanted))


def _is_wanted_below(folder: str, wanted: tuple[str, ...], name: PurePosixPath) -> bool:
    return matches(wanted, folder / name)
