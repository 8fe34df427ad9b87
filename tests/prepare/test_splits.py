"""Which image is in which split: the lists, what is held out of them, folds."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from data_params import data_params, preprocess_params
from voc_folder import write_folder

from ssd.errors import UserError
from ssd.prepare.annotations import AnnotatedObject, Annotation, Catalogue, Found, ImageRef, Problem
from ssd.prepare.sources import read_source
from ssd.prepare.splits import Listing, make_splits

IDS = [f"{number:03}" for number in range(200)]


def image(name: str) -> ImageRef:
    """Every image has a dog; each tenth a rare cat, too."""
    names = ["dog", "cat"] if name.endswith("7") else ["dog"]
    objects = tuple(AnnotatedObject(found, (1, 1, 9, 9), (1, 1, 9, 9)) for found in names)
    return ImageRef(name, Path(name), f"images/{name}", f"labels/{name}", Annotation(None, objects))


def catalogue(**splits: Sequence[str]) -> Catalogue:
    images = {split: [image(name) for name in names] for split, names in splits.items()}
    problems = {split: [Problem(f"{split} list", None, "", "dropped")] for split in splits}
    return Catalogue(images, problems, Found(0, 0))


def settled(found: Catalogue, *, folds: int = 0, fold: int = 0, **preprocess: object) -> Listing:
    return make_splits(found, data_params("voc_dir", folds=folds, fold=fold), preprocess_params(**preprocess))


def ids(listing: Listing) -> dict[str, list[str]]:
    return {split: [ref.id for ref in refs] for split, refs in listing.images.items()}


def num_cats(listing: Listing) -> dict[str, int]:
    return {
        split: sum(len(ref.annotation.objects) > 1 for ref in refs) for split, refs in listing.images.items()
    }


def test_splits_are_the_lists_in_their_order() -> None:
    listing = settled(catalogue(train=["b", "a"], val=["d"], test=["c"]), val_fraction=0.5)
    assert ids(listing) == {"train": ["b", "a"], "val": ["d"], "test": ["c"]}
    assert {split: [problem.file for problem in found] for split, found in listing.problems.items()} == {
        "train": ["train list"],
        "val": ["val list"],
        "test": ["test list"],
    }
    assert not listing.test_is_val
    assert listing.notes == ()
    assert listing.class_source_ids == {"a", "b"}


def test_an_image_in_two_splits_stays_in_the_one_that_scores() -> None:
    listing = settled(catalogue(train=["a", "b", "c"], val=["b", "d"], test=["c", "d"]))
    assert ids(listing) == {"train": ["a"], "val": ["b"], "test": ["c", "d"]}
    assert listing.problems["train"][1:] == [
        Problem("images/b", None, "is listed for val as well", "dropped"),
        Problem("images/c", None, "is listed for test as well", "dropped"),
    ]
    assert [problem.file for problem in listing.problems["val"][1:]] == ["images/d"]


def test_without_a_test_list_val_is_test() -> None:
    listing = settled(catalogue(train=["a", "b"], val=["b", "c"]))
    assert listing.test_is_val
    assert ids(listing) == {"train": ["a"], "test": ["b", "c"]}
    assert [problem.file for problem in listing.problems["test"]] == ["val list"]
    assert listing.notes[0].startswith("the test split is the val split")


def test_without_val_a_share_of_train_is_held_out() -> None:
    listing = settled(catalogue(train=IDS, test=["t"]), val_fraction=0.1)
    assert {split: len(found) for split, found in ids(listing).items()} == {
        "train": 180,
        "val": 20,
        "test": 1,
    }
    assert sorted([*ids(listing)["train"], *ids(listing)["val"]]) == IDS
    assert num_cats(listing) == {"train": 18, "val": 2, "test": 0}
    assert listing.notes == ("20 images were held out as val",)
    assert listing.class_source_ids == set(IDS)


def test_with_a_train_list_alone_what_is_held_out_is_val_and_test() -> None:
    listing = settled(catalogue(train=IDS), val_fraction=0.1)
    assert listing.test_is_val
    assert {split: len(found) for split, found in ids(listing).items()} == {"train": 180, "test": 20}


def test_test_fraction_is_taken_of_all_and_val_fraction_of_what_is_left() -> None:
    listing = settled(catalogue(train=IDS), test_fraction=0.2, val_fraction=0.25)
    assert {split: len(found) for split, found in ids(listing).items()} == {
        "train": 120,
        "val": 40,
        "test": 40,
    }
    assert num_cats(listing) == {"train": 12, "val": 4, "test": 4}
    assert not listing.test_is_val
    assert listing.notes == ("40 images were held out as test", "40 images were held out as val")


def test_test_is_taken_from_both_lists_where_there_are_two() -> None:
    listing = settled(catalogue(train=IDS[:150], val=IDS[150:]), test_fraction=0.2)
    found = ids(listing)
    assert len(found["test"]) == 40
    assert set(found["train"]) < set(IDS[:150])
    assert set(found["val"]) < set(IDS[150:])


def test_a_test_fraction_that_is_not_used_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    settled(catalogue(train=IDS, test=["t"]), test_fraction=0.2)
    settled(catalogue(train=IDS, test=["t"]), test_fraction=0.2, folds=2)
    settled(catalogue(train=IDS), test_fraction=0.2, folds=2)
    assert caplog.messages == ["preprocess.test_fraction: not used: the data set has a test split"] * 2


def test_val_is_part_of_train_where_it_is_trained_on() -> None:
    found = catalogue(train=IDS[:100], val=[*IDS[100:150], "t"], test=["t"])
    listing = settled(found, train_on_val=True, val_fraction=0.1)
    assert ids(listing) == {"train": IDS[:150], "val": [], "test": ["t"]}
    assert [problem.file for problem in listing.problems["train"]] == ["train list", "val list", "images/t"]
    assert listing.problems["val"] == []
    assert listing.class_source_ids == set(IDS[:150])
    assert not listing.test_is_val
    assert listing.notes == (
        "train includes the val split of the data set (preprocess.train_on_val); there is no validation",
    )


def test_voc2007_is_trained_on_trainval_as_papers_do(tmp_path: Path) -> None:
    names = {"train": ["1", "4"], "val": ["2", "3"], "trainval": ["1", "2", "3", "4"], "test": ["5"]}
    write_folder(tmp_path / "voc2007/VOCdevkit/VOC2007", names)
    data = data_params("voc2007")
    listing = make_splits(read_source(data, tmp_path), data, preprocess_params(train_on_val=True))
    splits = ids(listing)
    assert sorted(splits["train"]) == names["trainval"]
    assert (splits["val"], splits["test"]) == ([], names["test"])
    assert not any(listing.problems.values())


def test_test_is_taken_from_both_before_val_is_trained_on() -> None:
    found = catalogue(train=IDS[:150], val=IDS[150:])
    splits = ids(settled(found, train_on_val=True, test_fraction=0.2))
    assert (len(splits["train"]), splits["val"], len(splits["test"])) == (160, [], 40)
    assert sorted([*splits["train"], *splits["test"]]) == IDS
    assert splits["test"] == ids(settled(found, test_fraction=0.2))["test"]


def test_a_val_that_is_the_test_split_is_not_trained_on() -> None:
    with pytest.raises(UserError, match=r"^preprocess\.train_on_val: found true; allowed: false, as the val"):
        settled(catalogue(train=["a"], val=["b"]), train_on_val=True)


def test_training_on_val_without_an_effect_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    listing = settled(catalogue(train=IDS, test=["t"]), train_on_val=True, val_fraction=0.1)
    assert len(ids(listing)["val"]) == 20
    settled(catalogue(train=IDS[:9], val=IDS[9:]), train_on_val=True, folds=2)
    start = "preprocess.train_on_val: not used: "
    assert caplog.messages == [
        f"{start}the data set has no val split",
        f"{start}data.folds divides train and val",
    ]


def test_nothing_is_held_out_where_the_fractions_are_0() -> None:
    assert ids(settled(catalogue(train=["a"], test=["b"]))) == {"train": ["a"], "val": [], "test": ["b"]}
    assert ids(settled(catalogue(train=["a"]))) == {"train": ["a"], "test": []}


def test_at_least_one_image_is_held_out() -> None:
    assert len(ids(settled(catalogue(train=IDS[:3], test=["t"]), val_fraction=0.01))["val"]) == 1


def test_what_is_held_out_follows_from_ids_and_seed_not_from_the_order() -> None:
    chosen = ids(settled(catalogue(train=IDS), val_fraction=0.2))["test"]
    backward = ids(settled(catalogue(train=IDS[::-1]), val_fraction=0.2))["test"]
    assert backward == chosen[::-1]
    assert ids(settled(catalogue(train=IDS), val_fraction=0.2, split_seed=1))["test"] != chosen
    # Not the first, nor every n-th: no run of a video is held out whole.
    assert 5 < len(set(chosen) & set(IDS[:100])) < 35


def test_every_image_of_train_and_val_is_tested_in_just_one_fold() -> None:
    found = catalogue(train=IDS[:130], val=IDS[130:], test=["t1", "t2"])
    tested: Counter[str] = Counter()
    for fold in range(3):
        listing = settled(found, folds=3, fold=fold, val_fraction=0.1)
        splits = ids(listing)
        assert sorted(name for names in splits.values() for name in names) == IDS
        assert len(splits["test"]) in (66, 67)
        assert len(splits["val"]) == 13
        assert 6 <= num_cats(listing)["test"] <= 7
        assert listing.class_source_ids == set(IDS)
        assert [problem.file for problem in listing.problems["train"]] == ["train list", "val list"]
        tested.update(splits["test"])
    assert tested == Counter(IDS)


def test_the_notes_tell_the_fold_and_that_the_own_test_split_is_not_used() -> None:
    listing = settled(catalogue(train=IDS, test=["t"]), folds=5, fold=2)
    assert listing.notes == (
        "test is fold 2 of 0 to 4 (data.fold) of the train and val images",
        "the data set's own test split is not used",
    )
    assert ids(listing)["val"] == []
    assert not listing.test_is_val


@pytest.mark.parametrize("num_val", [0, 50])
def test_what_is_the_test_split_without_folds_is_in_no_fold(num_val: int) -> None:
    lists = {"train": IDS[num_val:]} | ({"val": IDS[:num_val]} if num_val else {})
    fractions = {"test_fraction": 0.2, "val_fraction": 0.1}
    held_out = ids(settled(catalogue(**lists), **fractions))["test"]
    assert len(held_out) == 40
    tested: Counter[str] = Counter()
    for fold in range(3):
        listing = settled(catalogue(**lists), folds=3, fold=fold, **fractions)
        splits = ids(listing)
        every = [name for names in splits.values() for name in names]
        assert sorted([*every, *held_out]) == IDS
        unused = [problem for problem in listing.problems["test"] if problem.action == "unused"]
        assert [problem.file for problem in unused] == [f"images/{name}" for name in held_out]
        assert {problem.reason for problem in unused} == {"held out of all folds: preprocess.test_fraction"}
        assert sum(problem.num_objects for problem in unused) == 44
        assert listing.notes[1] == "40 images were held out of all folds (preprocess.test_fraction)"
        tested.update(splits["test"])
    assert sorted([*tested.elements(), *held_out]) == IDS


def test_more_folds_than_images_that_are_not_held_out_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.folds: found 4; allowed: at most .* images, 3"):
        settled(catalogue(train=["a", "b"], val=["c", "d"]), folds=4, test_fraction=0.25)


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.folds: found 4; allowed: at most .* images, 3"):
        settled(catalogue(train=["a", "b"], val=["c"]), folds=4)


def test_an_image_that_is_listed_for_test_is_in_no_fold() -> None:
    found = catalogue(train=["a", "b", "c", "t"], test=["t"])
    listings = [settled(found, folds=3, fold=fold) for fold in range(3)]
    assert all("t" not in names for listing in listings for names in ids(listing).values())
