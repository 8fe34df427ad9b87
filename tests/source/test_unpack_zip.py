"""Unpacking zips: the wanted files and nothing else, nothing outside the folder, nothing damaged."""

import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
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


def message_of(archive: Path, folder: Path, wanted: Callable[[PurePosixPath], bool] = WANTED) -> str:
    """The error of an archive that must be refused: one line that names it."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(UserError) as error:
        unpack_zip(archive, folder, wanted)
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
    "absolute backslash": entry("\\\\host\\evil.jpg"),
    "symlink": entry("val2017/evil.jpg", stat.S_IFLNK | 0o777),
    "symlinked folder": entry("val2017", stat.S_IFLNK | 0o777),
    "device": entry("val2017/evil.jpg", stat.S_IFCHR | 0o644),
    "unwanted, yet out": entry("../README"),
    "unwanted symlink": entry("latest", stat.S_IFLNK | 0o777),
    "no name": entry("."),
    "a line break": entry("val2017/1\n.jpg"),
    "long": entry(f"val2017/{'é' * 126}.jpg"),
    "very long": entry(f"val2017/{'x' * 60_000}.jpg"),
    "below a file": entry("val2017/2.jpg/val2017/3.jpg"),
}


@pytest.mark.parametrize("evil", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_a_hostile_entry_stops_all_before_anything_is_written(tmp_path: Path, evil: zipfile.ZipInfo) -> None:
    archive = write_zip(tmp_path / "in.zip", FILES, evil)
    message = message_of(archive, tmp_path / "out", wanted=lambda path: path.suffix == ".jpg")
    assert "nothing was unpacked" in message and len(message) < 600
    assert set(found_in(tmp_path)) == {"in.zip"}


def stored_zip(path: Path, name: bytes, flags: int) -> Path:
    """A zip of one file that holds b"image", with the bytes of its name as given."""
    about = struct.pack("<4H3I2H", flags, 0, 0, 0, zlib.crc32(b"image"), 5, 5, len(name), 0)
    file = b"PK\3\4" + b"\x14\0" + about + name + b"image"
    directory = b"PK\1\2" + b"\x14\0\x14\0" + about + bytes(14) + name
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 1, 1, len(directory), len(file), 0)
    path.write_bytes(file + directory + end)
    return path


UTF8 = 0x800
"""The flag of a name in UTF-8."""


@pytest.mark.parametrize(
    ("name", "flags", "path"),
    [
        ("train/Zürich 東京.jpg".encode(), UTF8, "train/Zürich 東京.jpg"),
        ("train/Zürich 東京.jpg".encode(), 0, "train/Zürich 東京.jpg"),
        ("train/Zürich.jpg".encode("cp437"), 0, "train/Zürich.jpg"),
        (b"images\\train\\1.jpg", 0, "images/train/1.jpg"),
        (b"./train//1.jpg", 0, "train/1.jpg"),
    ],
    ids=["UTF-8", "UTF-8 as macOS writes it", "as DOS wrote it", "backslashes", "dot and slashes"],
)
def test_names_are_read_as_their_writers_meant_them(
    tmp_path: Path, name: bytes, flags: int, path: str
) -> None:
    (tmp_path / "out").mkdir()
    asked = []

    def wanted(path: PurePosixPath) -> bool:
        asked.append(path)
        return True

    assert unpack_zip(stored_zip(tmp_path / "a.zip", name, flags), tmp_path / "out", wanted) == 1
    assert found_in(tmp_path / "out") == {path: b"image"}
    assert asked == [PurePosixPath(path)]


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        (b"", 0, "no name of a file"),
        (b"\0evil.jpg", 0, "no name of a file"),
        (b"Z\xfcrich.jpg", UTF8, "not a whole zip archive ('utf-8' codec can't decode"),
    ],
    ids=["empty", "zero byte", "not the UTF-8 that it says"],
)
def test_bytes_that_are_no_name_are_refused(tmp_path: Path, name: bytes, flags: int, message: str) -> None:
    archive = stored_zip(tmp_path / "a.zip", name, flags)
    assert message in message_of(archive, tmp_path / "out", wanted=lambda path: True)
    assert found_in(tmp_path / "out") == {}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_data_of_any_compression_is_one_line(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method) as packed:
        packed.writestr("val2017/1.jpg", b"image" * 1000)
    content = archive.read_bytes()
    start, end = content.index(b".jpg") + 20, content.index(b"PK\1\2")
    archive.write_bytes(content[:start] + bytes(end - start) + content[end:])
    assert "not a whole zip archive" in message_of(archive, tmp_path / "out")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """LZMA packs zeros seven thousand times; no picture or list shrinks as far."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("val2017/1.jpg", bytes(5_000_000))
    message = message_of(archive, tmp_path / "out")
    assert "would unpack to 5,000,000 bytes" in message and "nothing was unpacked" in message
    assert found_in(tmp_path / "out") == {}


def test_two_names_that_the_file_system_takes_for_one_are_told(tmp_path: Path) -> None:
    """As one without case takes A.jpg and a.jpg: the second is found to exist."""
    (tmp_path / "out/val2017").mkdir(parents=True)
    (tmp_path / "out/val2017/1.jpg").write_bytes(b"first")
    message = message_of(write_zip(tmp_path / "a.zip", FILES), tmp_path / "out")
    assert "File exists" in message and "val2017/1.jpg" in message
    assert (tmp_path / "out/val2017/1.jpg").read_bytes() == b"first"


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
