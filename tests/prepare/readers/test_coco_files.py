"""Which JSON file is for which split, and where its images are, as COCO and labelling tools lay them out."""

from pathlib import Path

import pytest
from coco_folder import annotation, image, write_coco, write_images, write_json

from ssd.errors import UserError
from ssd.prepare.readers.coco import read_coco
from ssd.prepare.readers.coco_files import find_coco_files
from ssd.prepare.readers.folder_files import read_folder


def write(folder: Path, *files: str) -> None:
    for name in files:
        write_json(folder / name, [image(1, "a.jpg")], [annotation(1, 1)])


def splits_of(folder: Path) -> dict[str, str]:
    return dict(find_coco_files(read_folder(folder)).splits)


def message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        find_coco_files(read_folder(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cocos_own_layout(tmp_path: Path) -> None:
    write_coco(tmp_path, train="ab", val="c")
    write(tmp_path, "annotations/captions_train2017.json")
    assert splits_of(tmp_path) == {
        "train": "annotations/instances_train2017.json",
        "val": "annotations/instances_val2017.json",
    }
    images = read_coco(read_folder(tmp_path)).images
    assert {split: [ref.id for ref in refs] for split, refs in images.items()} == {
        "train": ["train2017/a.jpg", "train2017/b.jpg"],
        "val": ["val2017/c.jpg"],
    }


@pytest.mark.parametrize("place", ["train/a.jpg", "images/train/a.jpg", "images/a.jpg", "a.jpg"])
def test_images_may_be_in_four_places(tmp_path: Path, place: str) -> None:
    write(tmp_path, "annotations/instances_train.json", "annotations/instances_test.json")
    write_images(tmp_path, place)
    (ref,) = read_coco(read_folder(tmp_path)).images["train"]
    assert ref.id == place


def test_a_file_beside_its_images_is_for_the_split_of_its_folder(tmp_path: Path) -> None:
    for folder in ("train", "valid", "test"):
        write(tmp_path, f"{folder}/_annotations.coco.json")
        write_images(tmp_path / folder, "a.jpg")
    assert list(splits_of(tmp_path)) == ["train", "val", "test"]
    assert [ref.id for ref in read_coco(read_folder(tmp_path)).images["val"]] == ["valid/a.jpg"]


@pytest.mark.parametrize(
    ("file", "image_file"),
    [
        ("annotations.json", "images/a.jpg"),
        ("instances.json", "a.jpg"),
        ("my export.json", "a.jpg"),
        ("_annotations.coco.json", "a.jpg"),
        ("annotations/instances_default.json", "images/default/a.jpg"),
        ("annotations/labels.json", "images/a.jpg"),
    ],
)
def test_a_file_alone_is_all_train(tmp_path: Path, file: str, image_file: str) -> None:
    write(tmp_path, file)
    write_images(tmp_path, image_file)
    assert splits_of(tmp_path) == {"train": file}
    assert [ref.id for ref in read_coco(read_folder(tmp_path)).images["train"]] == [image_file]


def test_a_file_with_the_usual_name_counts_before_others(tmp_path: Path) -> None:
    write(tmp_path, "annotations.json", "colours.json", ".hidden.json")
    assert splits_of(tmp_path) == {"train": "annotations.json"}


def test_a_file_of_no_split_is_named_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_train.json", "annotations/instances_night.json")
    found = message(tmp_path)
    assert "instances_night.json: 'night' begins with none of train, val, test" in found
    assert "name it after its split" in found


def test_two_files_for_a_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_train2014.json", "annotations/instances_train2017.json")
    assert "instances_train2014.json is for train, too" in message(tmp_path)


def test_no_file_to_train_on_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "annotations/instances_val.json", "annotations/instances_test.json")
    assert "but none to train on" in message(tmp_path)


def test_several_files_without_the_usual_names_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.json", "annotations/b.json")
    assert "found several JSON files: a.json, annotations/b.json; " in message(tmp_path)


def test_a_folder_without_json_is_refused(tmp_path: Path) -> None:
    assert "holds no annotations in COCO JSON" in message(tmp_path)
