"""A user's own folder: what is copied of it, and what each mistake is answered with."""

import os
import shutil
from pathlib import Path

import pytest

from ssd.errors import UserError
from ssd.source.own_folder import copy_voc_folder


def make_voc_folder(folder: Path, *lists: str) -> Path:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    (folder / "JPEGImages/a.jpg").write_bytes(b"image")
    (folder / "Annotations/a.xml").write_bytes(b"<annotation/>")
    for name in lists:
        (folder / f"ImageSets/Main/{name}.txt").write_text("a\n")
    return folder


def found_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def message_of(path: str, root: Path) -> str:
    """The error for a `data.path` that must be refused: one line that names the key."""
    with pytest.raises(UserError) as error:
        copy_voc_folder(path, root, root / "target")
    message = str(error.value)
    assert message.startswith("data.path: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("absolute", [True, False])
def test_the_three_folders_files_are_copied(tmp_path: Path, absolute: bool) -> None:
    own = make_voc_folder(tmp_path / "own", "train", "val")
    expected = found_in(own)
    (own / "JPEGImages/.DS_Store").write_bytes(b"hidden")
    (own / "JPEGImages/folder").mkdir()
    (own / "JPEGImages/folder/b.jpg").write_bytes(b"image")
    (own / "ImageSets/Layout").mkdir()
    (own / "README").write_bytes(b"text")
    copy_voc_folder(str(own) if absolute else "own", tmp_path, tmp_path / "target")
    assert found_in(tmp_path / "target") == expected


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_voc_folder(tmp_path / "own", "train")
    copy_voc_folder("~/own", tmp_path / "elsewhere", tmp_path / "target")
    assert "JPEGImages/a.jpg" in found_in(tmp_path / "target")


def test_a_link_inside_the_folder_is_copied_as_a_file(tmp_path: Path) -> None:
    own = make_voc_folder(tmp_path / "own", "train")
    (own / "JPEGImages/b.jpg").symlink_to("a.jpg")
    copy_voc_folder("own", tmp_path, tmp_path / "target")
    assert not (tmp_path / "target/JPEGImages/b.jpg").is_symlink()
    assert (tmp_path / "target/JPEGImages/b.jpg").read_bytes() == b"image"


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    make_voc_folder(tmp_path / "disk/own", "train")
    (tmp_path / "own").symlink_to("disk/own")
    copy_voc_folder("own", tmp_path, tmp_path / "target")
    assert "JPEGImages/a.jpg" in found_in(tmp_path / "target")


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, link: str) -> None:
    own = make_voc_folder(tmp_path / "own", "train")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/b.jpg").write_bytes(b"secret")
    if link == "file":
        (own / "JPEGImages/b.jpg").symlink_to(tmp_path / "secret/b.jpg")
    else:
        shutil.rmtree(own / "JPEGImages")
        (own / "JPEGImages").symlink_to(tmp_path / "secret")
    assert "JPEGImages/b.jpg is a link out of" in message_of("own", tmp_path)
    assert not (tmp_path / "target").exists()


def test_a_missing_folder_is_named_with_the_place_that_was_looked_at(tmp_path: Path) -> None:
    message = message_of("data/own", tmp_path)
    assert "data/own is not a folder" in message
    assert str(tmp_path / "data/own") in message


@pytest.mark.parametrize("name", ["JPEGImages", "Annotations", "ImageSets/Main"])
def test_each_missing_part_is_named(tmp_path: Path, name: str) -> None:
    own = make_voc_folder(tmp_path / "own", "train")
    shutil.rmtree(own / name)
    assert f"own lacks {name};" in message_of("own", tmp_path)


def test_a_folder_without_a_list_to_train_on_tells_which_it_has(tmp_path: Path) -> None:
    make_voc_folder(tmp_path / "own", "val", "dog_train")
    message = message_of("own", tmp_path)
    assert "neither train.txt nor trainval.txt" in message
    assert "(found: dog_train.txt, val.txt)" in message
    make_voc_folder(tmp_path / "bare")
    assert "(found: no list)" in message_of("bare", tmp_path)


@pytest.mark.parametrize("path", ["VOC", "VOC/VOCdevkit", "VOC/VOCdevkit/mine/JPEGImages"])
def test_a_path_one_level_off_is_answered_with_the_right_one(tmp_path: Path, path: str) -> None:
    make_voc_folder(tmp_path / "VOC/VOCdevkit/mine", "train")
    assert message_of(path, tmp_path).endswith("perhaps you meant VOC/VOCdevkit/mine")


def test_with_several_folders_below_each_is_offered(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        make_voc_folder(tmp_path / "VOCdevkit" / year, "train")
    message = message_of("VOCdevkit", tmp_path)
    assert message.endswith("perhaps you meant VOCdevkit/VOC2007 or VOCdevkit/VOC2012")


def test_a_full_disk_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, os.strerror(28), str(target))

    make_voc_folder(tmp_path / "own", "train")
    monkeypatch.setattr(shutil, "copyfile", full)
    assert os.strerror(28) in message_of("own", tmp_path)
