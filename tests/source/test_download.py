"""The sources that are not in VOC layout, from params to a catalogue, with a server on this machine."""

import hashlib
import io
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import loopback as lb
import numpy as np
import pytest
from coco_folder import write_coco, write_images
from data_params import data_params
from loopback import Loopback
from PIL import Image
from voc_folder import encode, picture

from ssd.errors import UserError
from ssd.fetch import RemoteFile
from ssd.params import Source
from ssd.prepare.sources import LISTS, read_source
from ssd.source import download as downloading
from ssd.source.download import download
from ssd.source.public_sets import ARCHIVES, Archive


def write_penn_fudan(folder: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[4:20, 3:10] = 1
    for name in ("PNGImages", "PedMasks", "Annotation"):
        (folder / "PennFudanPed" / name).mkdir(parents=True)
    (folder / "PennFudanPed/PNGImages/a.png").write_bytes(encode(picture(), "PNG"))
    Image.fromarray(mask).save(folder / "PennFudanPed/PedMasks/a_mask.png")
    (folder / "PennFudanPed/Annotation/a.txt").write_text("")


def write_yolo(folder: Path) -> None:
    write_images(folder / "images/train", "a.jpg")
    (folder / "labels/train").mkdir(parents=True)
    (folder / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text("names: [dog]\n")


def zipped(folder: Path, top: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for path in sorted((folder / top).rglob("*")):
            packed.write(path, path.relative_to(folder))
    return buffer.getvalue()


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """What all the zips unpack to."""
    folder = tmp_path / "unpacked"
    write_coco(folder, train="ab", val="c")
    (folder / "annotations/captions_train2017.json").write_text("{}")
    write_penn_fudan(folder)
    return folder


@pytest.fixture
def server(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """Serves tiny zips at /NAME in place of the published ones."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with lb.serving() as running:

        def tiny(archive: Archive) -> Archive:
            assert archive.folder is not None
            content = zipped(unpacked, archive.folder)
            url = running.serve(f"/{archive.file.name}", content)
            digest = hashlib.sha256(content).hexdigest()
            return replace(archive, file=RemoteFile(archive.file.name, len(content), digest, (url,)))

        table = {source: tuple(map(tiny, ARCHIVES[source])) for source in ("coco", "penn_fudan")}
        monkeypatch.setattr(downloading, "ARCHIVES", table)
        yield running


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


WANTED: dict[Source, set[str]] = {
    "coco": {
        "annotations/instances_train2017.json",
        "annotations/instances_val2017.json",
        "train2017/a.jpg",
        "train2017/b.jpg",
        "val2017/c.jpg",
    },
    "penn_fudan": {"PennFudanPed/PNGImages/a.png", "PennFudanPed/PedMasks/a_mask.png"},
}
IMAGES: dict[Source, dict[str, list[str]]] = {
    "coco": {"train": ["train2017/a.jpg", "train2017/b.jpg"], "val": ["val2017/c.jpg"]},
    "penn_fudan": {"train": ["a"]},
}


def test_every_source_of_params_is_fetched_drawn_or_copied() -> None:
    own = {"folder", "voc_dir", "coco_json", "yolo_dir"}
    assert set(ARCHIVES) | own | {"shapes"} == set(get_args(Source))
    assert set(LISTS) == {"shapes", "voc2007", "voc2012", "voc0712"}


@pytest.mark.parametrize("source", WANTED)
def test_zips_are_fetched_and_what_is_wanted_of_them_is_unpacked(
    server: Loopback, tmp_path: Path, source: Source
) -> None:
    params = data_params(source)
    download(params, tmp_path / "raw", tmp_path)
    assert files_of(tmp_path / "raw" / source) == WANTED[source]
    catalogue = read_source(params, tmp_path / "raw")
    found = {split: [ref.id for ref in refs] for split, refs in catalogue.images.items()}
    assert found == IMAGES[source]
    assert not any(catalogue.problems.values())


@pytest.mark.parametrize("source", WANTED)
def test_folders_among_the_archives_need_no_network(
    server: Loopback, unpacked: Path, tmp_path: Path, source: Source
) -> None:
    download(data_params(source, archives="unpacked"), tmp_path / "raw", tmp_path)
    assert files_of(tmp_path / "raw" / source) == WANTED[source]
    assert server.requests == []


def test_a_zip_with_a_wrong_digest_is_never_unpacked(server: Loopback, tmp_path: Path) -> None:
    server.scripts["/PennFudanPed.zip"] = [lb.corrupt]
    with pytest.raises(UserError, match="wrong sha256"):
        download(data_params("penn_fudan"), tmp_path / "raw", tmp_path)
    assert not (tmp_path / "raw").exists()


def test_an_own_folder_with_coco_json_is_copied_without_what_is_not_needed(tmp_path: Path) -> None:
    write_coco(tmp_path / "own", train="a", val="b")
    (tmp_path / "own/video.mp4").write_bytes(b"large")
    params = data_params("coco_json")
    download(params, tmp_path / "raw", tmp_path)
    assert "video.mp4" not in files_of(tmp_path / "raw/coco_json")
    assert [ref.id for ref in read_source(params, tmp_path / "raw").images["val"]] == ["val2017/b.jpg"]


def test_an_own_folder_in_yolo_layout_is_copied(tmp_path: Path) -> None:
    write_yolo(tmp_path / "own")
    params = data_params("yolo_dir")
    download(params, tmp_path / "raw", tmp_path)
    catalogue = read_source(params, tmp_path / "raw")
    assert catalogue.class_names == ("dog",)
    assert [ref.id for ref in catalogue.images["train"]] == ["images/train/a.jpg"]


def test_a_zip_of_ones_own_is_unpacked_without_what_is_not_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_yolo(tmp_path / "own")
    (tmp_path / "own/video.mp4").write_bytes(b"large")
    shutil.make_archive(str(tmp_path / "export"), "zip", tmp_path, "own")
    params = data_params("folder", path="export.zip")
    with caplog.at_level("INFO"):
        download(params, tmp_path / "raw", tmp_path)
    assert "not copied, as neither images nor annotations: 1 .mp4" in caplog.text
    assert not any("video" in name for name in files_of(tmp_path / "raw/folder"))
    assert [ref.id for ref in read_source(params, tmp_path / "raw").images["train"]] == ["images/train/a.jpg"]


@pytest.mark.parametrize("source", ["folder", "voc_dir", "coco_json", "yolo_dir"])
def test_an_own_folder_that_is_missing_or_empty_leaves_nothing(tmp_path: Path, source: Source) -> None:
    with pytest.raises(UserError, match=r"^data.path: own is not a folder .* or its \.zip"):
        download(data_params(source), tmp_path / "raw", tmp_path)
    (tmp_path / "own").mkdir()
    with pytest.raises(UserError, match="own holds nothing of the data set"):
        download(data_params(source), tmp_path / "raw", tmp_path)
    assert files_of(tmp_path) == set()
