"""data.yaml in all its forms, and lists of class names."""

from pathlib import Path

import pytest
from exports import images, text, txts, yolo_with

from ssd.errors import UserError
from ssd.prepare.readers.folder_files import read_folder
from ssd.prepare.readers.yolo_config import YoloConfig, read_config
from ssd.prepare.readers.yolo_folder import read_yolo_folder


def config(folder: Path, **contents: str) -> YoloConfig:
    """Of a folder with files: data_yaml="..." is data.yaml."""
    images(folder / "images", ["img00"])
    for name, content in contents.items():
        text(folder / ".".join(name.rsplit("__", 1)), content)
    return read_config(read_folder(folder))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data__yaml", "names: [cat, dog]"),
        ("data__yml", "nc: 2\nnames:\n  1: dog\n  0: cat"),
        ("dataset__yaml", "names: {'0': cat, '1': dog}"),
        ("my_set__yaml", "names: [cat, dog]"),
        ("classes__txt", "cat\ndog\n\n"),
        ("obj__names", "cat\ndog"),
        ("_darknet__labels", "cat\ndog"),
    ],
)
def test_names_are_found_in_yaml_and_in_lists(tmp_path: Path, name: str, content: str) -> None:
    assert config(tmp_path, **{name: content}).names == ("cat", "dog")


def test_words_that_are_flags_in_old_yaml_are_names(tmp_path: Path) -> None:
    assert config(tmp_path, data__yaml="names: [yes, no, on]").names == ("yes", "no", "on")


@pytest.mark.parametrize(
    "content",
    [
        "names: {1: cat}",
        "names: 5",
        "names: [a, a]",
        "names: [",
        "- a",
        "names: [[a]]",
        "train: 5\nnames: [a]",
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match=r"data\.yaml: ") as caught:
        config(tmp_path, data__yaml=content)
    assert "\n" not in str(caught.value)


def test_yaml_makes_no_python_objects(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not readable"):
        config(tmp_path, data__yaml="names: !!python/object/apply:os.getcwd []")


def test_two_yaml_files_of_which_either_could_be_meant_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.yaml, b\.yaml, each of which could say the splits"):
        config(tmp_path, a__yaml="names: [a]", b__yaml="names: [b]")
    assert config(tmp_path, data__yaml="names: [c]").unused == {
        "a.yaml": "data.yaml is used",
        "b.yaml": "data.yaml is used",
    }


def test_lists_with_different_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"obj\.names, classes\.txt hold different class names"):
        config(tmp_path, classes__txt="cat", obj__names="dog")


def test_names_of_the_folder_count_before_those_of_params(tmp_path: Path) -> None:
    images(tmp_path)
    txts(tmp_path)
    with pytest.raises(UserError, match=r"neither data\.yaml with names nor classes\.txt"):
        read_yolo_folder(read_folder(tmp_path), [])
    assert read_yolo_folder(read_folder(tmp_path), ["x", "y"]).class_names == ("x", "y")
    text(tmp_path / "classes.txt", "cat", "dog")
    assert read_yolo_folder(read_folder(tmp_path), ["x", "y"]).class_names == ("cat", "dog")


def test_a_train_folder_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    yolo_with("train: images/photos", "names: [cat, dog]")(tmp_path)
    expected = r"train: images/photos: no images there; images are in images/test/, images/train/"
    with pytest.raises(UserError, match=expected):
        read_yolo_folder(read_folder(tmp_path), [])


def test_a_val_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    yolo_with("train: images/train", "val: images/photos", "names: [cat, dog]")(tmp_path)
    catalogue = read_yolo_folder(read_folder(tmp_path), [])
    assert list(catalogue.images) == ["train"]
    told = {problem.file: problem.reason for problem in catalogue.found.unused}
    assert told["data.yaml, val: images/photos"] == "not used: there is no such folder of images, or list"


def test_an_image_of_a_list_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    images(tmp_path / "images", ["img00"])
    txts(tmp_path / "labels", ["img00"])
    text(tmp_path / "train.txt", "images/img00.jpg", "images/gone.jpg")
    (problem,) = read_yolo_folder(read_folder(tmp_path), ["cat", "dog"]).problems["train"]
    assert (problem.file, problem.reason) == ("train.txt", "there is no image images/gone.jpg")


def test_images_without_a_label_file_are_noted(tmp_path: Path) -> None:
    yolo_with("names: [cat, dog]")(tmp_path)
    (tmp_path / "labels/train/img00.txt").unlink()
    notes = read_yolo_folder(read_folder(tmp_path), []).found.notes
    assert notes == ("1 of 10 images have no label file, so no objects",)


def test_two_images_of_one_label_file_are_told(tmp_path: Path) -> None:
    images(tmp_path, ["img00"])
    images(tmp_path, ["img00"], suffix=".png", format="PNG")
    txts(tmp_path, ["img00"])
    (problem,) = read_yolo_folder(read_folder(tmp_path), ["cat", "dog"]).problems["train"]
    assert (problem.file, problem.reason) == ("img00.png", "img00.jpg has the same label file")
