"""Names of splits as people and tools write them, and which list or folder is used for what."""

import pytest

from ssd.errors import UserError
from ssd.prepare.readers.split_names import choose_splits, group_by_folder, split_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Train", "TRAIN", "training", "train2017", "train_set", "train-1"]),
        ("val", ["val", "valid", "Validation", "val2017", "dev"]),
        ("test", ["test", "Test", "testing", "test-dev2017"]),
        ("trainval", ["trainval", "train_val", "TrainVal2012"]),
        (None, ["default", "valley", "trains", "tests", "cam1", "", "my_train", "attest"]),
    ],
)
def test_a_name_that_begins_with_a_split_is_of_it(split: str | None, names: list[str]) -> None:
    assert [split_of(name) for name in names] == [split] * len(names)


@pytest.mark.parametrize(
    ("names", "splits", "unused"),
    [
        (["train", "val", "test"], {"train": ["train"], "val": ["val"], "test": ["test"]}, {}),
        (["train", "val", "trainval"], {"train": ["train"], "val": ["val"]}, {}),
        (["trainval", "test"], {"train": ["trainval"], "test": ["test"]}, {}),
        (["trainval", "val"], {"train": ["trainval"]}, {"val": "trainval is train, which includes it"}),
        (["Train", "train_small"], {"train": ["Train"]}, {"train_small": "Train is train"}),
        (["train2014", "train2017"], {"train": ["train2014", "train2017"]}, {}),
        (["default"], {"train": ["default"]}, {}),
        (["day", "night"], {"train": ["day", "night"]}, {}),
        (["train", "night"], {"train": ["train"]}, {"night": "its name is none of train, val, test"}),
    ],
)
def test_lists_become_splits(names: list[str], splits: dict[str, list[str]], unused: dict[str, str]) -> None:
    choice = choose_splits(names, "lists")
    assert choice.splits == splits
    assert choice.unused == unused


@pytest.mark.parametrize("names", [["val"], ["val", "test"], ["test", "night"], []])
def test_splits_without_one_to_train_on_are_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match=r"lists: found .*, but none to train on; name one of them train"):
        choose_splits(names, "lists")


def test_images_are_divided_by_the_first_folder_that_says_a_split() -> None:
    paths = ["images/train/cam1/test/a.jpg", "images/Valid/b.jpg", "images/other/c.jpg", "d.jpg"]
    grouping = group_by_folder(paths)
    assert {split: [path for path, _ in members] for split, members in grouping.splits.items()} == {
        "train": paths[:1],
        "val": paths[1:2],
    }
    assert grouping.made_of == {"train": "images/train/", "val": "images/Valid/"}


def test_without_folders_of_splits_all_images_are_train() -> None:
    grouping = group_by_folder(["train.jpg", "cam/val.jpg"])
    assert grouping.splits == {"train": [("train.jpg", ""), ("cam/val.jpg", "")]}
    assert grouping.made_of == {"train": "all images"}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train/train", "train/val", "train/extra"], {"train": [0], "val": [1]}),
        (["test-project/images/train", "test-project/images/test"], {"train": [0], "test": [1]}),
        (["train/cam1", "train/test_rig"], {"train": [0, 1]}),
        (["images/train/day", "images/train/night"], {"train": [0, 1]}),
    ],
)
def test_the_folder_of_all_images_is_no_split_if_there_are_splits_in_it(
    folders: list[str], expected: dict[str, list[int]]
) -> None:
    paths = [f"{folder}/a.jpg" for folder in folders]
    grouping = group_by_folder(paths)
    assert {split: [path for path, _ in members] for split, members in grouping.splits.items()} == {
        split: [paths[number] for number in numbers] for split, numbers in expected.items()
    }
