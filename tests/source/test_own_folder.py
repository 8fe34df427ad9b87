"""Copying a folder: the wanted files, nothing hidden, nothing from elsewhere."""

import os
import shutil
from pathlib import Path, PurePosixPath

import pytest

from ssd.errors import UserError
from ssd.source.own_folder import copy_folder, existing_folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for name in ("images/a.jpg", "images/sub/b.JPG", "a.json", "notes.docx", ".git/c.jpg", "images/.d.jpg"):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "own"


def is_image(name: PurePosixPath) -> bool:
    return name.suffix.lower() == ".jpg"


def copied(target: Path) -> dict[str, bytes]:
    return {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}


def message(own: Path) -> str:
    with pytest.raises(UserError) as caught:
        copy_folder("data.path", own, own.parent / "target", is_image)
    assert str(caught.value).startswith("data.path: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wanted_files_keep_their_places_and_hidden_ones_are_left_out(own: Path, tmp_path: Path) -> None:
    assert copy_folder("data.path", own, tmp_path / "target", is_image) == 2
    assert copied(tmp_path / "target") == {
        "images/a.jpg": b"images/a.jpg",
        "images/sub/b.JPG": b"images/sub/b.JPG",
    }


def test_a_link_inside_becomes_a_file_and_one_that_leads_out_is_refused(own: Path, tmp_path: Path) -> None:
    (own / "images/link.jpg").symlink_to("a.jpg")
    copy_folder("data.path", own, tmp_path / "target", is_image)
    assert not (tmp_path / "target/images/link.jpg").is_symlink()
    assert copied(tmp_path / "target")["images/link.jpg"] == b"images/a.jpg"

    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (own / "images/out.jpg").symlink_to(tmp_path / "secret.jpg")
    assert "images/out.jpg is a link out of" in message(own)


def test_a_link_to_a_folder_is_refused(own: Path) -> None:
    (own / "more").symlink_to("images")
    assert "more is a link to a folder" in message(own)


def test_the_folder_itself_may_be_a_link(own: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(own)
    assert copy_folder("data.path", tmp_path / "link", tmp_path / "target", is_image) == 2


def test_a_folder_with_nothing_wanted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    assert "holds nothing of the data set" in message(tmp_path / "own")


def test_a_full_disk_is_an_error_of_one_line(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, os.strerror(28), str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert os.strerror(28) in message(own)


def test_a_missing_folder_is_named_with_the_place_that_was_looked_at(tmp_path: Path) -> None:
    assert existing_folder("data.path", str(tmp_path), Path("elsewhere"), "one") == tmp_path
    with pytest.raises(
        UserError, match=f"data.path: own is not a folder .*{tmp_path / 'own'}.*needed is one"
    ):
        existing_folder("data.path", "own", tmp_path, "one")
