"""The layout of the YOLO tools: normalised boxes, names from several places."""

from pathlib import Path

import pytest
from coco_folder import write_images

from ssd.errors import UserError
from ssd.prepare.checks import mend_box
from ssd.prepare.yolo import read_names, read_yolo


def write(folder: Path, *lines: str, split: str = "train", stem: str = "a") -> None:
    write_images(folder / "images" / split, f"{stem}.jpg")
    labels = folder / "labels" / split / f"{stem}.txt"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text("".join(f"{line}\n" for line in lines))


def test_boxes_are_shares_of_the_image(tmp_path: Path) -> None:
    write(tmp_path, "1 0.5 0.5 0.25 0.2", "", "0 0.5 0.5 1 1")
    catalogue = read_yolo(tmp_path, ["cat", "dog"])
    (ref,) = catalogue.images["train"]
    assert (ref.id, ref.annotation_file) == ("images/train/a.jpg", "labels/train/a.txt")
    dog, cat = ref.annotation.objects
    assert (dog.name, dog.written, dog.box) == ("dog", (0.5, 0.5, 0.25, 0.2), (15, 12, 25, 18))
    assert (cat.name, cat.box) == ("cat", (0, 0, 40, 30))
    assert catalogue.class_names == ("cat", "dog")


def test_six_digits_of_a_box_at_the_edge_do_not_reach_over_it(tmp_path: Path) -> None:
    write(tmp_path, "0 0.666667 0.5 0.666667 1")
    (ref,) = read_yolo(tmp_path, ["cat"]).images["train"]
    assert mend_box(ref.annotation.objects[0].box, (30, 40)) == ((13.33, 0, 40, 30), [])


def test_splits_are_the_folders_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, split="train")
    write(tmp_path, split="test", stem="b")
    images = read_yolo(tmp_path, ["cat"]).images
    assert {split: [ref.id for ref in refs] for split, refs in images.items()} == {
        "train": ["images/train/a.jpg"],
        "test": ["images/test/b.jpg"],
    }


def test_an_image_without_label_file_has_no_objects(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "labels/train/a.txt").unlink()
    (ref,) = read_yolo(tmp_path, ["cat"]).images["train"]
    assert ref.annotation.objects == ref.annotation.flaws == ()


@pytest.mark.parametrize(
    ("line", "flaw"),
    [
        ("0 0.1 0.1 0.2 0.1 0.2 0.2", "has 7 columns, not class cx cy w h"),
        ("2 0.5 0.5 0.1 0.1", "class 2 is none of 0 to 1"),
        ("dog 0.5 0.5 0.1 0.1", "class dog is none of 0 to 1"),
        ("0 0.5 0.5 x 0.1", "0.5 0.5 x 0.1: not four numbers"),
        ("0 0.5 0.5 inf 0.1", "0.5 0.5 inf 0.1: not four finite numbers"),
    ],
)
def test_lines_that_cannot_be_read_are_flaws(tmp_path: Path, line: str, flaw: str) -> None:
    write(tmp_path, "0 0.5 0.5 0.1 0.1", line)
    (ref,) = read_yolo(tmp_path, ["cat", "dog"]).images["train"]
    assert len(ref.annotation.objects) == 1
    assert ref.annotation.flaws == (f"line 2: {flaw}",)


def test_an_image_that_does_not_open_is_dropped(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "images/train/a.jpg").write_bytes(b"<html>")
    (problem,) = read_yolo(tmp_path, ["cat"]).problems["train"]
    assert problem.file == "images/train/a.jpg"
    assert problem.reason.startswith("does not decode")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "names: [cat, dog]"),
        ("data.yaml", "nc: 2\nnames:\n  1: dog\n  0: cat\n"),
        ("classes.txt", "cat\ndog\n\n"),
    ],
)
def test_names_of_the_folder_count_before_those_of_params(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, "1 0.5 0.5 0.25 0.2")
    (tmp_path / name).write_text(text)
    (ref,) = read_yolo(tmp_path, ["x"]).images["train"]
    assert [found.name for found in ref.annotation.objects] == ["dog"]


@pytest.mark.parametrize("text", ["names: {1: cat}", "names: 5", "nc: 2", "names: [a, a]", "names: [", "- a"])
def test_names_that_cannot_be_read_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=r"data\.yaml: ") as caught:
        read_names(tmp_path)
    assert "\n" not in str(caught.value)


def test_yaml_makes_no_python_objects(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: !!python/object/apply:os.getcwd []")
    with pytest.raises(UserError, match="not readable"):
        read_names(tmp_path)


def test_no_names_at_all_are_an_error_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match=r"data\.classes"):
        read_yolo(tmp_path, [])
