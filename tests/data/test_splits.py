"""Which image is in which split, whatever the lists say."""

from pathlib import Path

import pytest
from voc_folder import write_folder, write_lists

from ssd.data.checks import Problem
from ssd.data.sources import VocList
from ssd.data.splits import Listing, folder_labels, hold_out, list_images
from ssd.errors import UserError

IDS = [f"{number:06}" for number in range(200)]


def ids(listing: Listing) -> dict[str, list[str]]:
    return {split: [ref.id for ref in refs] for split, refs in listing.images.items()}


def test_splits_are_the_lists_in_their_order(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["b", "a"], "val": ["d"], "test": ["c"]})
    listing = list_images(lists, val_fraction=0.5)
    assert ids(listing) == {"train": ["b", "a"], "val": ["d"], "test": ["c"]}
    assert listing.problems == {"train": [], "val": [], "test": []}
    assert not listing.test_is_val
    assert not listing.held_out


def test_an_image_and_its_annotation_are_found_by_the_stem(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a", "b"], "val": ["c"], "test": ["d"]})
    images = tmp_path / "own/JPEGImages"
    (images / "a.jpg").rename(images / "a.JPEG")
    (images / "b.jpg").rename(images / "b.Png")
    (images / "c.jpg").rename(images / "c.gif")
    listing = list_images(lists, 0)
    names = {ref.id: ref.image_name for refs in listing.images.values() for ref in refs}
    assert names == {"a": "a.JPEG", "b": "b.Png", "c": None, "d": "d.jpg"}
    (ref, _) = listing.images["train"]
    assert ref.annotation_path == tmp_path / "own/Annotations/a.xml"
    assert (ref.image_file, ref.annotation_file) == ("own/JPEGImages/a.JPEG", "own/Annotations/a.xml")


def test_of_two_images_with_one_stem_the_jpg_is_taken(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a"], "test": ["b"]})
    for name in ("a.png", "a.jpeg", "a.PNG"):
        (tmp_path / "own/JPEGImages" / name).touch()
    (ref,) = list_images(lists, 0).images["train"]
    assert ref.image_name == "a.jpg"


def test_an_id_listed_twice_counts_once(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a", "b", "a"], "trainval": ["b", "c"], "test": ["d"]})
    listing = list_images({"train": lists["train"] + lists["trainval"], "test": lists["test"]}, 0)
    assert ids(listing)["train"] == ["a", "b", "c"]
    assert listing.problems["train"] == [
        Problem("own/ImageSets/Main/train.txt", None, "a is listed twice", "dropped"),
        Problem("own/ImageSets/Main/trainval.txt", None, "b is listed twice", "dropped"),
    ]


def test_ids_of_several_folders_tell_the_folder(tmp_path: Path) -> None:
    old = write_folder(tmp_path / "VOC2007", {"trainval": ["1", "2"], "test": ["3"]})
    new = write_folder(tmp_path / "VOC2012", {"trainval": ["1"]})
    listing = list_images({"train": old["trainval"] + new["trainval"], "test": old["test"]}, 0)
    assert ids(listing) == {
        "train": ["VOC2007/1", "VOC2007/2", "VOC2012/1"],
        "test": ["VOC2007/3"],
        "val": [],
    }
    assert not any(listing.problems.values())


def test_folder_labels_are_as_short_as_they_can_be() -> None:
    assert folder_labels([Path("/a/b"), Path("/a/b")]) == {Path("/a/b"): "b"}
    assert folder_labels([Path("x/2007"), Path("x/2012")]) == {Path("x/2007"): "2007", Path("x/2012"): "2012"}
    assert folder_labels([Path("x/own"), Path("y/own")]) == {Path("x/own"): "x/own", Path("y/own"): "y/own"}


def test_an_image_in_two_splits_stays_in_the_one_that_scores(tmp_path: Path) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a", "b", "c"], "val": ["b", "d"], "test": ["c", "d"]})
    listing = list_images(lists, 0)
    assert ids(listing) == {"train": ["a"], "val": ["b"], "test": ["c", "d"]}
    assert listing.problems["train"] == [
        Problem("own/JPEGImages/b.jpg", None, "is listed for val as well", "dropped"),
        Problem("own/JPEGImages/c.jpg", None, "is listed for test as well", "dropped"),
    ]
    assert [problem.file for problem in listing.problems["val"]] == ["own/JPEGImages/d.jpg"]


@pytest.mark.parametrize("named", [True, False])
def test_where_test_is_val_by_design_that_is_no_leak(tmp_path: Path, named: bool) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a", "b"], "val": ["b", "c"]})
    if named:
        lists["test"] = [VocList(tmp_path / "own", "val")]
    listing = list_images(lists, 0.5)
    assert listing.test_is_val
    assert ids(listing) == {"train": ["a"], "test": ["b", "c"]}
    assert [problem.file for problem in listing.problems["train"]] == ["own/JPEGImages/b.jpg"]


def test_without_val_a_share_of_train_is_held_out(tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "own", {"train": IDS, "test": ["t"]})
    (tmp_path / "own/JPEGImages").mkdir()
    listing = list_images(lists, 0.1)
    found = ids(listing)
    assert len(found["val"]) == 20
    assert listing.held_out == set(found["val"])
    assert sorted(found["train"] + found["val"]) == IDS
    assert found["train"] == sorted(found["train"])
    assert found["test"] == ["t"]
    assert ids(list_images(lists, 0)) == {"train": IDS, "val": [], "test": ["t"]}


def test_with_train_alone_the_share_serves_as_val_and_test(tmp_path: Path) -> None:
    lists = write_lists(tmp_path / "own", {"train": IDS})
    (tmp_path / "own/JPEGImages").mkdir()
    listing = list_images(lists, 0.1)
    assert listing.test_is_val
    assert {split: len(found) for split, found in ids(listing).items()} == {"train": 180, "test": 20}


def test_what_is_held_out_follows_from_the_ids_alone() -> None:
    chosen = hold_out(IDS, 0.2)
    assert hold_out(IDS[::-1], 0.2) == chosen
    assert hold_out(IDS, 0.1) < chosen
    assert len(hold_out(IDS[:3], 0.01)) == 1
    assert hold_out(IDS, 0.0) == set()
    # Not the first, nor every n-th: no run of a video is held out whole.
    assert 5 < len(chosen & set(IDS[:100])) < 35


@pytest.mark.parametrize("stem", ["../a", "sub/a", "..", "a\\b", "/etc/hostname"])
def test_ids_do_not_lead_out_of_the_folder(tmp_path: Path, stem: str) -> None:
    lists = write_folder(tmp_path / "own", {"train": ["a"], "test": ["b"]})
    (tmp_path / "own/ImageSets/Main/train.txt").write_text(f"a\n{stem}\n")
    listing = list_images(lists, 0)
    assert ids(listing)["train"] == ["a"]
    (problem,) = listing.problems["train"]
    assert problem.reason.endswith("is no plain file name")


def test_missing_lists_and_folders_are_errors(tmp_path: Path) -> None:
    lists = {"train": [VocList(tmp_path / "own", "train")]}
    with pytest.raises(UserError, match="JPEGImages: no such folder"):
        list_images(lists, 0)
    (tmp_path / "own/JPEGImages").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train\.txt: not found"):
        list_images(lists, 0)
