"""Unpacking: the wanted files and nothing else, nothing outside the folder, nothing from half an archive."""

import io
import shutil
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

from ssd.errors import UserError
from ssd.source.unpack import unpack_tar

WANTED = ("JPEGImages", "Annotations", "ImageSets/Main")
FILES = {
    "VOCdevkit/VOC2007/JPEGImages/000001.jpg": b"image" * 1000,
    "VOCdevkit/VOC2007/Annotations/000001.xml": b"<annotation/>",
    "VOCdevkit/VOC2007/ImageSets/Main/train.txt": b"000001\n",
}
UNWANTED = {
    "VOCdevkit/VOC2007/SegmentationClass/000001.png": b"mask",
    "VOCdevkit/VOC2007/ImageSets/Layout/train.txt": b"000001\n",
    "VOCdevkit/VOC2007/JPEGImages/more/000002.jpg": b"image",
    "VOCdevkit/VOC2007/MyJPEGImages/000003.jpg": b"image",
    "README": b"text",
}


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, size, 0o755
    return info


def write_tar(path: Path, files: dict[str, bytes], extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    """A tar of `files` and then `extra`, with an entry for each first-level folder, as VOC's have."""
    with tarfile.open(path, "w") as tar:
        for folder in sorted({name.split("/")[0] for name in files if "/" in name}):
            tar.addfile(entry(folder, tarfile.DIRTYPE))
        for name, content in files.items():
            tar.addfile(entry(name, size=len(content)), io.BytesIO(content))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def found_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def message_of(archive: Path, folder: Path) -> str:
    """The error of an archive that must be refused: one line that names it."""
    with pytest.raises(UserError) as error:
        unpack_tar(archive, folder, WANTED)
    assert str(archive) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_only_the_wanted_files_are_unpacked(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", FILES | UNWANTED)
    assert unpack_tar(archive, tmp_path / "out", WANTED) == 3
    assert found_in(tmp_path / "out") == FILES


def test_modes_of_the_archive_are_not_applied(tmp_path: Path) -> None:
    unpack_tar(write_tar(tmp_path / "a.tar", FILES), tmp_path / "out", WANTED)
    modes = {path.stat().st_mode & 0o111 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {0}


MALICIOUS = {
    "parent": entry("VOCdevkit/../../JPEGImages/evil", size=4),
    "symlink out": entry("VOCdevkit/JPEGImages/evil", tarfile.SYMTYPE, "../../../evil"),
    "symlink to an absolute path": entry("VOCdevkit/JPEGImages/evil", tarfile.SYMTYPE, "/etc/passwd"),
    "symlink inside": entry("VOCdevkit/JPEGImages/evil", tarfile.SYMTYPE, "000001.jpg"),
    "symlinked folder": entry("VOCdevkit/JPEGImages", tarfile.SYMTYPE, "../.."),
    "hard link out": entry("VOCdevkit/JPEGImages/evil", tarfile.LNKTYPE, "../evil"),
    "device": entry("VOCdevkit/JPEGImages/evil", tarfile.CHRTYPE),
    "pipe": entry("VOCdevkit/JPEGImages/evil", tarfile.FIFOTYPE),
    "unwanted, yet out": entry("../README", size=4),
    "unwanted symlink, yet out": entry("latest", tarfile.SYMTYPE, "/etc/passwd"),
    "unwanted hard link, yet out": entry("latest", tarfile.LNKTYPE, "../evil"),
    "unwanted device": entry("null", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("evil", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_a_hostile_entry_stops_all_before_anything_is_written(tmp_path: Path, evil: tarfile.TarInfo) -> None:
    archive = write_tar(tmp_path / "in.tar", FILES, extra=(evil,))
    out = tmp_path / "deep" / "er" / "out"
    out.mkdir(parents=True)
    message = message_of(archive, out)
    assert evil.name in message
    assert "nothing was unpacked" in message
    assert set(found_in(tmp_path)) == {"in.tar"}


@pytest.mark.parametrize("name", ["/tmp/JPEGImages/evil", "VOCdevkit/a/../JPEGImages/evil"])
def test_an_odd_name_ends_inside_the_folder(tmp_path: Path, name: str) -> None:
    archive = write_tar(tmp_path / "in.tar", {}, extra=(entry(name, size=4),))
    assert unpack_tar(archive, tmp_path / "out", WANTED) == 1
    assert {path.split("/")[0] for path in found_in(tmp_path)} == {"in.tar", "out"}
    assert not Path("/tmp/JPEGImages/evil").exists()


def test_links_are_never_written_so_a_file_below_one_stays_inside(tmp_path: Path) -> None:
    folder = entry("VOCdevkit/VOC2007/JPEGImages", tarfile.SYMTYPE, "../../elsewhere")
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(folder)
        tar.addfile(entry("VOCdevkit/VOC2007/JPEGImages/a.jpg", size=4), io.BytesIO(b"data"))
    assert unpack_tar(archive, tmp_path / "out", WANTED) == 1
    assert found_in(tmp_path / "out") == {"VOCdevkit/VOC2007/JPEGImages/a.jpg": b"data"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_an_archive_may_end_without_the_closing_zeros(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(archive) as tar:
        last = tar.getmembers()[-1]
    whole = archive.read_bytes()
    for num_zeros in (0, 512, 1024):
        archive.write_bytes(whole[: last.offset_data + tarfile.BLOCKSIZE + num_zeros])
        assert unpack_tar(archive, tmp_path / f"out{num_zeros}", WANTED) == 3


@pytest.mark.parametrize("cut", ["in a file", "in a header", "at once"])
def test_a_truncated_archive_is_refused(tmp_path: Path, cut: str) -> None:
    archive = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(archive) as tar:
        last = tar.getmembers()[-1]
        end = {
            "in a file": last.offset_data + 2,
            "in a header": last.offset + 100,
            "at once": 0,
        }[cut]
    archive.write_bytes(archive.read_bytes()[:end])
    assert "not a whole tar archive" in message_of(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_garbled_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", FILES)
    content = bytearray(archive.read_bytes())
    with tarfile.open(archive) as tar:
        content[tar.getmembers()[-1].offset + 10] ^= 1
    archive.write_bytes(content)
    assert "not a whole tar archive" in message_of(archive, tmp_path / "out")


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    page, packed = tmp_path / "page.tar", tmp_path / "packed.tar"
    page.write_text("<html>404</html>" * 100)
    with tarfile.open(packed, "w:gz") as tar:
        tar.addfile(entry("VOCdevkit/JPEGImages/a.jpg"))
    for archive in (page, packed):
        assert "not a whole tar archive" in message_of(archive, tmp_path / "out")
    assert "cannot be unpacked" in message_of(tmp_path / "absent.tar", tmp_path / "out")


def test_of_two_files_of_one_name_the_later_one_is_taken_as_tar_does(tmp_path: Path) -> None:
    archive, name = tmp_path / "a.tar", "VOCdevkit/JPEGImages/1.jpg"
    with tarfile.open(archive, "w") as tar:
        for folder, content in (("", b"old"), ("./", b"new")):
            tar.addfile(entry(folder + name, size=3), io.BytesIO(content))
    assert unpack_tar(archive, tmp_path / "out", WANTED) == 1
    assert found_in(tmp_path / "out") == {name: b"new"}


def sparse(**headers: str) -> bytes:
    """A tar of one sparse file, of which it holds a hundred zeros."""
    info, content = entry("VOCdevkit/JPEGImages/1.jpg", size=100), io.BytesIO()
    info.pax_headers = {f"GNU.sparse.{key}": value for key, value in headers.items()}
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(bytes(100)))
    return content.getvalue()


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(sparse(map="0,50,60,10", size=str(10**12)))
    assert "nothing was unpacked: it is sparse" in message_of(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def too_deep() -> bytes:
    """Headers of long names, each of which names the next one."""
    header = entry("@LongLink", tarfile.GNUTYPE_LONGNAME, size=20).tobuf(tarfile.GNU_FORMAT)
    return (header + b"VOCdevkit/JPEGImages".ljust(tarfile.BLOCKSIZE, b"\0")) * 2000


@pytest.mark.parametrize(
    "content",
    [
        sparse(map="0,fifty", size="100"),
        sparse(major="1", minor="0"),
        too_deep(),
        entry("@LongLink", tarfile.GNUTYPE_LONGNAME, size=10**17).tobuf(tarfile.GNU_FORMAT),
    ],
    ids=["sparse 0.1", "sparse 1.0", "deep", "longer than any memory"],
)
def test_a_header_that_makes_no_sense_is_one_line(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(content + bytes(2 * tarfile.BLOCKSIZE))
    assert "not a whole tar archive" in message_of(archive, tmp_path / "out")


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100))
    archive = write_tar(tmp_path / "a.tar", FILES)
    assert "needs 5,020 bytes" in message_of(archive, tmp_path / "out")
    assert found_in(tmp_path / "out") == {}


def test_an_archive_without_the_wanted_folders_is_refused(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", UNWANTED)
    assert "holds no file in JPEGImages" in message_of(archive, tmp_path / "out")
