"""Bringing a data set to disk: fetched archives, the user's own folder, or drawn."""

from dataclasses import replace
from pathlib import Path

from ssd.data.archive import unpack
from ssd.data.fetch import RemoteFile, fetch
from ssd.data.shapes import write_shapes
from ssd.data.voc_dir import VOC_FOLDERS, copy_voc_dir
from ssd.errors import UserError
from ssd.files import replacing_folder
from ssd.params import DataParams, Source


def _voc_archive(year: int, name: str, num_bytes: int, sha256: str) -> RemoteFile:
    mirrors = (
        f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        "https://data.pjreddie.com/files/",
    )
    return RemoteFile(name, num_bytes, sha256, tuple(mirror + name for mirror in mirrors))


VOC2007_TRAINVAL = _voc_archive(
    year=2007,
    name="VOCtrainval_06-Nov-2007.tar",
    num_bytes=460_032_000,
    sha256="7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
)
VOC2007_TEST = _voc_archive(
    year=2007,
    name="VOCtest_06-Nov-2007.tar",
    num_bytes=451_020_800,
    sha256="6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
)
VOC2012_TRAINVAL = _voc_archive(
    year=2012,
    name="VOCtrainval_11-May-2012.tar",
    num_bytes=1_999_639_040,
    sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
)

ARCHIVES: dict[Source, tuple[RemoteFile, ...]] = {
    "voc2007": (VOC2007_TRAINVAL, VOC2007_TEST),
    "voc2012": (VOC2012_TRAINVAL,),
    "voc0712": (VOC2007_TRAINVAL, VOC2007_TEST, VOC2012_TRAINVAL),
}


def download(data: DataParams, raw_folder: Path, root: Path) -> None:
    """Bring `data.source` to `raw_folder / data.source`, whole or not at all.

    Args:
        data: the section of params.yaml; its relative paths count from `root`.
        raw_folder: what is there of this source is replaced.
        root: the main workspace, so that experiments in other folders share one folder of archives.

    Raises:
        UserError: a download, an archive, or the user's own folder is not as it should be.
    """
    archives = _fetch_all(data, root)
    with replacing_folder(raw_folder / data.source) as folder:
        if data.source == "shapes":
            write_shapes(
                folder / "VOCdevkit/shapes",
                num_train=data.shapes_train,
                num_val=data.shapes_val,
                num_test=data.shapes_test,
                side=data.shapes_side,
                seed=data.shapes_seed,
            )
        elif data.source == "voc_dir":
            copy_voc_dir(data.path, root, folder / "VOCdevkit/own")
        for archive in archives:
            unpack(archive, folder, wanted=VOC_FOLDERS)


def _fetch_all(data: DataParams, root: Path) -> list[Path]:
    """Fetch the archives of a source, from the user's mirrors before the built-in ones."""
    for mirror in data.mirrors:
        if not mirror.startswith(("http://", "https://")):
            raise UserError(f"params.yaml: data.mirrors: found {mirror!r}; allowed: http:// or https:// URLs")
    folder = root / Path(data.archives).expanduser()
    paths = []
    for archive in ARCHIVES.get(data.source, ()):
        own_urls = tuple(f"{mirror.rstrip('/')}/{archive.name}" for mirror in data.mirrors)
        paths.append(fetch(replace(archive, urls=own_urls + archive.urls), folder))
    return paths
