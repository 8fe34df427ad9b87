"""Each source from params to lists on disk, with small archives from a server on this machine."""

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import loopback as lb
import pytest
from data_params import data_params
from loopback import Loopback

from ssd.errors import UserError
from ssd.fetch import RemoteFile
from ssd.params import Source
from ssd.prepare import sources
from ssd.prepare.sources import voc_lists
from ssd.source import download as downloading
from ssd.source import public_sets as archives
from ssd.source.download import download
from ssd.source.public_sets import ARCHIVES, Archive

LISTS = {
    archives.VOC2007_TRAINVAL: ("VOC2007", ("train", "val", "trainval")),
    archives.VOC2007_TEST: ("VOC2007", ("test",)),
    archives.VOC2012_TRAINVAL: ("VOC2012", ("train", "val", "trainval")),
}


def make_voc_folder(folder: Path, *lists: str) -> Path:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationClass"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{'-'.join(lists)}.bin").write_bytes(b"content")
    for name in lists:
        (folder / f"ImageSets/Main/{name}.txt").write_text(f"{name}\n")
    return folder


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """name -> bytes of a tiny archive with the folders and lists of the published one."""
    made = {}
    for archive, (year, lists) in LISTS.items():
        folder = tmp_path_factory.mktemp("voc")
        make_voc_folder(folder / "VOCdevkit" / year, *lists)
        with tarfile.open(folder / "made.tar", "w") as tar:
            tar.add(folder / "VOCdevkit", "VOCdevkit")
        made[archive.file.name] = (folder / "made.tar").read_bytes()
    return made


@pytest.fixture
def server(tars: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """Serves the tiny archives at /voc/NAME in place of the published ones."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with lb.serving() as running:

        def tiny(archive: Archive) -> Archive:
            name, tar = archive.file.name, tars[archive.file.name]
            url = running.serve(f"/voc/{name}", tar)
            return replace(archive, file=RemoteFile(name, len(tar), hashlib.sha256(tar).hexdigest(), (url,)))

        table = {source: tuple(map(tiny, row)) for source, row in ARCHIVES.items() if source in EXPECTED}
        monkeypatch.setattr(downloading, "ARCHIVES", table)
        yield running


def lists_of(source: Source, raw: Path) -> dict[str, list[str]]:
    """split -> set/list names; every list is on disk."""
    found = voc_lists(source, raw)
    assert all(item.path.is_file() for items in found.values() for item in items)
    return {split: [f"{item.folder.name}/{item.name}" for item in items] for split, items in found.items()}


def test_there_are_twenty_voc_classes_in_alphabetical_order() -> None:
    assert len(sources.VOC_CLASSES) == 20
    assert list(sources.VOC_CLASSES) == sorted(sources.VOC_CLASSES)


def test_every_published_archive_has_a_length_a_digest_and_addresses() -> None:
    files = {archive.file for row in ARCHIVES.values() for archive in row}
    assert len(files) == 7
    for file in files:
        assert len(file.sha256) == 64
        assert all(url.endswith(f"/{file.name}") for url in file.urls)
    for archive in LISTS:
        assert archive.file.num_bytes % tarfile.BLOCKSIZE == 0
        assert len({url.split("/")[2] for url in archive.file.urls}) == 3


EXPECTED: dict[Source, dict[str, list[str]]] = {
    "voc2007": {"train": ["VOC2007/train"], "val": ["VOC2007/val"], "test": ["VOC2007/test"]},
    "voc2012": {"train": ["VOC2012/train"], "val": ["VOC2012/val"]},
    "voc0712": {"train": ["VOC2007/trainval", "VOC2012/trainval"], "test": ["VOC2007/test"]},
}


@pytest.mark.parametrize("source", EXPECTED)
def test_a_voc_source_is_downloaded_and_holds_its_lists(
    server: Loopback, tmp_path: Path, source: Source
) -> None:
    download(data_params(source), tmp_path / "raw", tmp_path)
    assert lists_of(source, tmp_path / "raw") == EXPECTED[source]
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [source]
    devkit = tmp_path / "raw" / source / "VOCdevkit"
    for year in {name.split("/")[0] for names in EXPECTED[source].values() for name in names}:
        assert {path.name for path in (devkit / year).iterdir()} == {"JPEGImages", "Annotations", "ImageSets"}
    stored = {path.name for path in (tmp_path / "archives").glob("[!.]*")}
    assert stored == {archive.file.name for archive in ARCHIVES[source]}


def test_a_second_source_fetches_only_what_is_not_there_yet(server: Loopback, tmp_path: Path) -> None:
    download(data_params("voc2007"), tmp_path / "raw", tmp_path)
    server.requests.clear()
    download(data_params("voc0712"), tmp_path / "raw", tmp_path)
    assert [path for path, _ in server.requests] == [f"/voc/{archives.VOC2012_TRAINVAL.file.name}"]


def test_archives_put_in_place_by_hand_need_no_network(
    server: Loopback, tars: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "by_hand").mkdir()
    for name, tar in tars.items():
        (tmp_path / "by_hand" / name).write_bytes(tar)
    download(data_params("voc0712", archives="by_hand"), tmp_path / "raw", tmp_path)
    assert lists_of("voc0712", tmp_path / "raw") == EXPECTED["voc0712"]
    assert server.requests == []


def test_the_users_mirrors_come_first(server: Loopback, tars: dict[str, bytes], tmp_path: Path) -> None:
    name = archives.VOC2012_TRAINVAL.file.name
    server.serve(f"/mine/{name}", tars[name])
    mirrors = [f"{server.base}/empty/", f"{server.base}/mine"]
    download(data_params("voc2012", mirrors=mirrors), tmp_path / "raw", tmp_path)
    assert [path for path, _ in server.requests] == [f"/empty/{name}", f"/mine/{name}"]


def test_a_mirror_that_is_no_web_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data.mirrors: found 'ftp://x/'"):
        download(data_params("voc2012", mirrors=["ftp://x/"]), tmp_path / "raw", tmp_path)


def test_an_archive_with_a_wrong_digest_is_never_unpacked(server: Loopback, tmp_path: Path) -> None:
    name = archives.VOC2012_TRAINVAL.file.name
    server.scripts[f"/voc/{name}"] = [lb.corrupt]
    with pytest.raises(UserError, match="wrong sha256"):
        download(data_params("voc2012"), tmp_path / "raw", tmp_path)
    assert list(tmp_path.rglob("[!.]*.tar")) == []
    assert not (tmp_path / "raw").exists()


def test_a_damaged_archive_leaves_what_was_there_before(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download(data_params("voc2012"), tmp_path / "raw", tmp_path)
    before = sorted((tmp_path / "raw").rglob("*"))
    damaged = b"not a tar"
    url = server.serve("/damaged.tar", damaged)
    whole = downloading.ARCHIVES["voc2012"][0]
    file = RemoteFile("damaged.tar", len(damaged), hashlib.sha256(damaged).hexdigest(), (url,))
    row = (whole, replace(whole, file=file))
    monkeypatch.setitem(downloading.ARCHIVES, "voc2012", row)
    with pytest.raises(UserError, match=r"damaged.tar: not a whole tar"):
        download(data_params("voc2012"), tmp_path / "raw", tmp_path)
    assert sorted((tmp_path / "raw").rglob("*")) == before


def test_shapes_are_written_as_params_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def write(folder: Path, **counts: int) -> None:
        asked.update(counts)
        make_voc_folder(folder, "train", "val", "test")

    monkeypatch.setattr(downloading, "write_shapes", write)
    download(data_params("shapes"), tmp_path / "raw", tmp_path)
    assert asked == {"num_train": 5, "num_val": 2, "num_test": 3, "side": 64, "seed": 1}
    assert lists_of("shapes", tmp_path / "raw") == {
        split: [f"shapes/{split}"] for split in ("train", "val", "test")
    }


def test_a_wrong_own_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data.path: own is not a folder"):
        download(data_params("voc_dir"), tmp_path / "raw", tmp_path)
    assert list(tmp_path.rglob("*")) == [tmp_path / "raw"]
