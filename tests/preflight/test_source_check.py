"""The check of the data: archives that are there, wrong or unreachable, and folders of one's own."""

from dataclasses import replace
from pathlib import Path

import loopback as lb
import pytest
from data_params import data_params
from loopback import Loopback
from voc_folder import write_folder

from ssd.fetch import RemoteFile
from ssd.params import Source
from ssd.preflight import hosts, sources
from ssd.preflight.finding import Finding
from ssd.preflight.sources import check_source
from ssd.source.public_sets import ARCHIVES

CONTENT = b"archive"
VOC = "VOCtrainval_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar"


@pytest.fixture
def archives(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The archives of all public sets, tiny, on a server that has none of them yet."""

    def tiny(name: str) -> RemoteFile:
        return RemoteFile(name, len(CONTENT), "", (f"{server.base}/{name}",))

    table = {
        source: tuple(replace(archive, file=tiny(archive.file.name)) for archive in group)
        for source, group in ARCHIVES.items()
    }
    monkeypatch.setattr(sources, "ARCHIVES", table)
    return server


def check(source: Source, root: Path, **changes: object) -> list[Finding]:
    return check_source(data_params(source, **changes), root / "raw", root)


def put(root: Path, name: str, content: bytes = CONTENT) -> None:
    (root / "archives").mkdir(exist_ok=True)
    (root / "archives" / name).write_bytes(content)


def test_shapes_need_nothing(archives: Loopback, tmp_path: Path) -> None:
    assert check("shapes", tmp_path) == []
    assert archives.heads == []


def test_archives_that_are_there_are_enough(archives: Loopback, tmp_path: Path) -> None:
    for name in VOC:
        put(tmp_path, name)
    assert check("voc2007", tmp_path) == []
    assert archives.heads == []


def test_a_host_is_asked_for_the_others_and_sends_nothing(archives: Loopback, tmp_path: Path) -> None:
    put(tmp_path, VOC[0])
    archives.serve(f"/{VOC[1]}", CONTENT)
    before = sorted(tmp_path.rglob("*"))
    assert check("voc2007", tmp_path) == []
    assert (archives.heads, archives.requests) == ([f"/{VOC[1]}"], [])
    assert sorted(tmp_path.rglob("*")) == before


def test_each_archive_that_no_host_has_is_a_line(archives: Loopback, tmp_path: Path) -> None:
    findings = check("voc0712", tmp_path)
    assert [finding.key for finding in findings] == ["data.archives"] * 3
    assert findings[0].text == (
        f"{VOC[0]} (0.00 GB) is not in archives and cannot be downloaded (127.0.0.1: HTTP 404); "
        f"put it there, from {archives.base}/{VOC[0]}"
    )
    assert all(finding.fatal for finding in findings)


def test_one_mirror_is_enough(archives: Loopback, tmp_path: Path) -> None:
    archives.serve("/mirror/PennFudanPed.zip", CONTENT)
    assert check("penn_fudan", tmp_path, mirrors=[f"{archives.base}/mirror/"]) == []


def test_what_is_no_mirror_is_found(archives: Loopback, tmp_path: Path) -> None:
    (finding,) = check("penn_fudan", tmp_path, mirrors=["/mnt/mirror"])
    assert finding.key == "data.mirrors"


def test_an_archive_of_another_size_is_found(archives: Loopback, tmp_path: Path) -> None:
    put(tmp_path, "PennFudanPed.zip", b"half")
    (finding,) = check("penn_fudan", tmp_path)
    assert finding.key == "data.archives"
    assert "PennFudanPed.zip: not the file that was published: 4 bytes, expected 7" in finding.text


def test_an_unpacked_folder_replaces_its_zip(archives: Loopback, tmp_path: Path) -> None:
    (tmp_path / "archives/PennFudanPed").mkdir(parents=True)
    assert check("penn_fudan", tmp_path) == []


def test_a_set_in_data_raw_needs_no_archive(archives: Loopback, tmp_path: Path) -> None:
    (tmp_path / "raw/voc2007").mkdir(parents=True)
    assert check("voc2007", tmp_path) == []
    assert archives.heads == []


def test_hosts_with_the_same_answer_are_named_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "unavailable_reason", lambda *_: "no connection")
    (finding, _) = check("voc2007", tmp_path)
    assert "(thor.robots.ox.ac.uk, host.robots.ox.ac.uk, data.pjreddie.com: no connection)" in finding.text
    assert "(0.46 GB)" in finding.text


@pytest.mark.parametrize("source", ["voc_dir", "coco_json", "yolo_dir"])
def test_a_folder_of_one_s_own_that_is_missing_or_empty_is_found(source: Source, tmp_path: Path) -> None:
    (missing,) = check(source, tmp_path)
    assert missing.text.startswith("own is not a folder")
    (tmp_path / "own").mkdir()
    (empty,) = check(source, tmp_path)
    assert (missing.key, missing.fatal, empty.fatal) == ("data.path", True, True)
    assert empty.text != missing.text


def test_a_folder_of_one_s_own_in_its_layout_is_enough(tmp_path: Path) -> None:
    write_folder(tmp_path / "own", {"train": ["a"]})
    assert check("voc_dir", tmp_path) == []


def test_a_folder_that_is_gone_after_its_download_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "raw/voc_dir").mkdir(parents=True)
    (finding,) = check("voc_dir", tmp_path)
    assert not finding.fatal


@pytest.mark.parametrize("answer", [lb.status(503), lb.status(405)])
def test_a_host_that_is_busy_or_knows_no_head_counts_as_there(
    answer: lb.Answer, archives: Loopback, tmp_path: Path
) -> None:
    archives.serve("/PennFudanPed.zip", CONTENT, answer)
    assert check("penn_fudan", tmp_path) == []


def test_a_web_page_or_a_file_of_another_size_is_not_the_archive(archives: Loopback, tmp_path: Path) -> None:
    archives.serve("/PennFudanPed.zip", CONTENT, lb.web_page)
    (page,) = check("penn_fudan", tmp_path)
    archives.serve("/PennFudanPed.zip", CONTENT[1:])
    (other,) = check("penn_fudan", tmp_path)
    assert "sends a web page" in page.text
    assert "holds 6 bytes, expected 7" in other.text
