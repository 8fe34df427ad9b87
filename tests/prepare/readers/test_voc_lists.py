"""Lists in VOC layout, whatever they say, and the images and annotations that they name."""

from pathlib import Path

import pytest
from voc_folder import DOG, annotation_xml, write_folder, write_image, write_lists

from ssd.errors import UserError
from ssd.prepare.annotations import Catalogue, Problem
from ssd.prepare.readers.voc import VocList, folder_labels, read_voc
from ssd.prepare.readers.voc_xml import parse_annotation


def ids(catalogue: Catalogue) -> dict[str, list[str]]:
    return {split: [ref.id for ref in refs] for split, refs in catalogue.images.items()}


def test_images_are_those_of_the_lists_in_their_order(tmp_path: Path) -> None:
    catalogue = read_voc(write_folder(tmp_path / "own", {"train": ["b", "a"], "test": ["c"]}), ["dog"])
    assert ids(catalogue) == {"train": ["b", "a"], "test": ["c"]}
    assert catalogue.problems == {"train": [], "test": []}
    assert catalogue.class_names == ("dog",)
    (ref,) = catalogue.images["test"]
    assert ref.path == tmp_path / "own/JPEGImages/c.jpg"
    assert (ref.image_file, ref.annotation_file) == ("own/JPEGImages/c.jpg", "own/Annotations/c.xml")
    assert ref.annotation == parse_annotation(annotation_xml(DOG))


def test_an_image_is_found_by_the_stem(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a", "b", "c"]})
    images = tmp_path / "own/JPEGImages"
    (images / "a.jpg").rename(images / "a.JPEG")
    (images / "b.jpg").rename(images / "b.Png")
    (images / "c.jpg").rename(images / "c.svg")
    catalogue = read_voc(lists)
    assert [ref.path.name for ref in catalogue.images["train"]] == ["a.JPEG", "b.Png"]
    reason = "there is no image of this name"
    assert catalogue.problems["train"] == [Problem("own/JPEGImages/c", None, reason, "dropped")]


def test_of_two_images_with_one_stem_the_jpg_is_taken(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a"]})
    for name in ("a.png", "a.jpeg", "a.PNG"):
        (tmp_path / "own/JPEGImages" / name).touch()
    (ref,) = read_voc(lists).images["train"]
    assert ref.path.name == "a.jpg"


def test_an_image_without_readable_annotation_is_dropped(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a", "b"]})
    (tmp_path / "own/Annotations/a.xml").unlink()
    write_image(tmp_path / "own", "b", None, b"<annotation>")
    catalogue = read_voc(lists)
    assert ids(catalogue) == {"train": []}
    files = [(problem.file, problem.action) for problem in catalogue.problems["train"]]
    assert files == [("own/Annotations/a.xml", "dropped"), ("own/Annotations/b.xml", "dropped")]


def test_an_id_listed_twice_counts_once(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a", "b", "a"], "trainval": ["b", "c"]})
    catalogue = read_voc({"train": lists["train"] + lists["trainval"]})
    assert ids(catalogue)["train"] == ["a", "b", "c"]
    assert catalogue.problems["train"] == [
        Problem("own/ImageSets/Main/train.txt", None, "a is listed twice", "dropped"),
        Problem("own/ImageSets/Main/trainval.txt", None, "b is listed twice", "dropped"),
    ]


def test_ids_of_several_folders_tell_the_folder(tmp_path: Path) -> None:
    old = write_folder(tmp_path / "VOC2007", {"trainval": ["1", "2"], "test": ["3"]})
    new = write_folder(tmp_path / "VOC2012", {"trainval": ["1"]})
    catalogue = read_voc({"train": old["trainval"] + new["trainval"], "test": old["test"]})
    assert ids(catalogue) == {"train": ["VOC2007/1", "VOC2007/2", "VOC2012/1"], "test": ["VOC2007/3"]}
    assert not any(catalogue.problems.values())


def test_folder_labels_are_as_short_as_they_can_be() -> None:
    assert folder_labels([Path("/a/b"), Path("/a/b")]) == {Path("/a/b"): "b"}
    assert folder_labels([Path("x/2007"), Path("x/2012")]) == {Path("x/2007"): "2007", Path("x/2012"): "2012"}
    assert folder_labels([Path("x/own"), Path("y/own")]) == {Path("x/own"): "x/own", Path("y/own"): "y/own"}


@pytest.mark.parametrize("stem", ["../a", "sub/a", "..", "a\\b", "/etc/hostname"])
def test_ids_do_not_lead_out_of_the_folder(tmp_path: Path, stem: str) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a"]})
    write_lists(tmp_path / "own", {"train": ["a", stem]})
    catalogue = read_voc(lists)
    assert ids(catalogue)["train"] == ["a"]
    (problem,) = catalogue.problems["train"]
    assert problem.reason.endswith("is no plain file name")


def test_missing_lists_and_folders_are_errors(tmp_path: Path) -> None:
    lists = {"train": [VocList(tmp_path / "own", "train")]}
    with pytest.raises(UserError, match="JPEGImages: no such folder"):
        read_voc(lists)
    (tmp_path / "own/JPEGImages").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train\.txt: not found"):
        read_voc(lists)
