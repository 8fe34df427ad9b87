"""Unpacking zips: the wanted files and nothing else, nothing outside the folder, nothing damaged."""

import shutil
import stat
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from ssd.errors import UserError
from ssd.source.unpack import matches, unpack_zip

WANTED = partial(matches, ("annotations/instances_*.json", "val2017/*.jpg"))
FILES = {"annotations/instances_val2017.json": b"{}", "val2017/1.jpg": b"image" * 1000, "val2017/2.jpg": b"x"}
UNWANTED = {
    "annotations/captions_val2017.json": b"{}",
    "more/val2017/1.jpg": b"image",
    "val2017/more/1.jpg": b"image",
    "README": b"text",
}


def entry(name: str, mode: int = stat.S_IFREG | 0o755) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def write_zip(path: Path, files: dict[str, bytes], *extra: zipfile.ZipInfo) -> Path:
    """A zip with an entry for each first-level folder, then `files`, then `extra` of four bytes each."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for folder in sorted({name.split("/")[0] for name in files if "/" in name}):
            packed.writestr(entry(f"{folder}/", stat.S_IFDIR | 0o755), b"")
        for name, content in files.items():
            packed.writestr(entry(name), content)
        for info in extra:
            packed.writestr(info, b"data")
    return path


def found_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def message_of(archive: Path, folder: Path) -> str:
    """The error of an archive that must be refused: one line that names it."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(UserError) as error:
        unpack_zip(archive, folder, WANTED)
    assert str(archive) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_only_the_wanted_files_are_unpacked_with_plain_modes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    archive = write_zip(tmp_path / "a.zip", FILES | UNWANTED)
    assert unpack_zip(archive, tmp_path / "out", WANTED) == 3
    assert found_in(tmp_path / "out") == FILES
    modes = {path.stat().st_mode & 0o111 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {0}


def test_what_is_wanted_is_any_rule_on_paths(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    archive = write_zip(tmp_path / "a.zip", FILES | UNWANTED)

    def is_deep(path: PurePosixPath) -> bool:
        return len(path.parts) == 3

    assert unpack_zip(archive, tmp_path / "out", is_deep) == 2
    assert set(found_in(tmp_path / "out")) == {"more/val2017/1.jpg", "val2017/more/1.jpg"}


MALICIOUS = {
    "parent": entry("val2017/../../evil.jpg"),
    "absolute": entry("/tmp/evil.jpg"),
    "backslash": entry("val2017\\..\\..\\evil.jpg"),
    "symlink": entry("val2017/evil.jpg", stat.S_IFLNK | 0o777),
    "symlinked folder": entry("val2017", stat.S_IFLNK | 0o777),
    "device": entry("val2017/evil.jpg", stat.S_IFCHR | 0o644),
    "unwanted, yet out": entry("../README"),
    "unwanted symlink": entry("latest", stat.S_IFLNK | 0o777),
}


@pytest.mark.parametrize("evil", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_a_hostile_entry_stops_all_before_anything_is_written(tmp_path: Path, evil: zipfile.ZipInfo) -> None:
    archive = write_zip(tmp_path / "in.zip", FILES, evil)
    assert "nothing was unpacked" in message_of(archive, tmp_path / "out")
    assert set(found_in(tmp_path)) == {"in.zip"}


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", FILES)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # in the central directory
    archive.write_bytes(content)
    assert "encrypted" in message_of(archive, tmp_path / "out")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = write_zip(tmp_path / "a.zip", FILES, entry("val2017/1.jpg"))
    assert "two files of one name" in message_of(archive, tmp_path / "out")


def test_a_changed_byte_is_found_by_the_files_own_checksum(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        packed.writestr("val2017/1.jpg", b"image" * 1000)
    content = bytearray(archive.read_bytes())
    content[content.index(b"image") + 100] ^= 1
    archive.write_bytes(content)
    assert "not a whole zip archive (Bad CRC-32" in message_of(archive, tmp_path / "out")


def test_no_file_becomes_longer_than_declared(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"val2017/1.jpg": b"\0" * 1_000_000})
    content = bytearray(archive.read_bytes())
    declared = (1_000_000).to_bytes(4, "little")
    where = content.rindex(declared)  # the length in the central directory
    content[where : where + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(content)
    message_of(archive, tmp_path / "out")
    assert sum(len(found) for found in found_in(tmp_path / "out").values()) <= 10


@pytest.mark.parametrize("end", [0, 10, -1, -200])
def test_a_truncated_archive_is_refused(tmp_path: Path, end: int) -> None:
    archive = write_zip(tmp_path / "a.zip", FILES)
    archive.write_bytes(archive.read_bytes()[:end])
    assert "not a whole zip archive" in message_of(archive, tmp_path / "out")


def test_an_archive_without_the_wanted_files_and_an_absent_one_are_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", UNWANTED)
    assert "holds no file that is needed" in message_of(archive, tmp_path / "out")
    with pytest.raises(UserError, match=r"holds no val2017/\*\.jpg; not the archive expected"):
        unpack_zip(archive, tmp_path / "out", WANTED, needed="val2017/*.jpg")
    assert "cannot be unpacked" in message_of(tmp_path / "absent.zip", tmp_path / "out")


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100))
    archive = write_zip(tmp_path / "a.zip", FILES)
    assert "needs 5,003 bytes" in message_of(archive, tmp_path / "out")
    assert found_in(tmp_path / "out") == {}
