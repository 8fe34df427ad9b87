"""Files of a user's folder, and which of them a name in an annotation means."""

import os
from pathlib import Path

import pytest

from ssd.prepare.readers.folder_files import FolderFiles, closest, plain_parts, read_folder


def files(tmp_path: Path, *names: str) -> FolderFiles:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return read_folder(tmp_path)


def test_hidden_files_masks_and_other_files_are_left_out(tmp_path: Path) -> None:
    found = files(
        tmp_path,
        "b.JPG",
        "a.xml",
        ".c.jpg",
        ".git/d.jpg",
        "SegmentationClass/b.png",
        "x.mp4",
        "__MACOSX/b.jpg",
    )
    assert (found.images, found.labels) == (("b.JPG",), ("a.xml",))


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["export/set/a.jpg", "export/set/b/c.jpg"], "export/set"),
        (["export/images/a.jpg", "export/images/b.jpg"], "export"),
        (["train/a.jpg"], ""),
        (["a.jpg", "b/c.jpg"], ""),
    ],
)
def test_folders_that_only_wrap_the_data_are_opened(tmp_path: Path, names: list[str], root: str) -> None:
    assert files(tmp_path, *names).root == tmp_path / root


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("images/a.jpg", "images/a.jpg"),
        ("a.jpg", None),  # two fit
        ("val/a.jpg", "val/a.jpg"),
        ("images\\a.jpg", "images/a.jpg"),
        ("C:\\photos\\images\\a.jpg", "images/a.jpg"),
        ("../../upload/1/b.jpg", "images/b.jpg"),
        ("/home/anna/b.jpg", "images/b.jpg"),
        ("?d=images/b.jpg", "images/b.jpg"),
        ("my%20cat.jpg", "images/my cat.jpg"),
        ("B.JPG", "images/b.jpg"),
        ("images/../a.jpg", None),
        ("c.jpg", None),
        ("", None),
        ("..", None),
        ("\0", None),
        ("x" * 10_000, None),
    ],
)
def test_a_name_means_the_file_that_its_longest_end_fits(
    tmp_path: Path, name: str, found: str | None
) -> None:
    every = files(tmp_path, "images/a.jpg", "val/a.jpg", "images/b.jpg", "images/my cat.jpg")
    assert every.find(name) == found


def test_of_several_files_the_one_near_the_annotation_is_meant(tmp_path: Path) -> None:
    every = files(tmp_path, "train/images/a.jpg", "valid/images/a.jpg")
    assert every.find("a.jpg", ["valid/labels"]) == "valid/images/a.jpg"
    assert closest(["x/a", "y/a"], ["z"]) is None


def test_a_backslash_may_be_a_part_of_a_name(tmp_path: Path) -> None:
    assert files(tmp_path, "a\\b.jpg", "c.jpg").find("a\\b.jpg") == "a\\b.jpg"


def test_the_usual_suffix_comes_first(tmp_path: Path) -> None:
    assert files(tmp_path, "a.png", "a.jpg", "b/a.gif").images_of_stem("a") == ["a.jpg", "a.png", "b/a.gif"]


def test_a_name_that_is_no_text_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    found = files(tmp_path, "a.jpg")
    assert (found.images, len(found.unnameable), found.num_images) == (("a.jpg",), 1, 2)


def test_plain_parts_have_no_drive_root_or_way_up() -> None:
    assert plain_parts("D:/a//./b.jpg") == ["a", "b.jpg"]
    assert plain_parts("../a/../b.jpg") == []
