"""Nothing is passed over: each image, label, list and object that is not used is reported, and counted."""

import shutil
from collections.abc import Callable
from pathlib import Path

import exports as ex
import pytest
from data_params import data_params
from exports import NUM_OBJECTS, STEMS, TRUTH
from test_exports import prepared
from voc_folder import encode, picture

from ssd.errors import UserError
from ssd.params import Source
from ssd.prepare.preprocess import all_problems, raise_if_unusable
from ssd.prepare.summary import Account, account, every_problem


def objects_of(*stems: str) -> int:
    return sum(len(TRUTH[stem]) for stem in stems)


def told(root: Path, write: Callable[[Path], None]) -> tuple[Account, dict[str, str]]:
    """The counts, and file -> reason of every problem, of an export."""
    write(root / "own")
    catalogue, result = prepared(data_params("folder"), root)
    problems = {problem.file: problem.reason for _, problem in every_problem(result, catalogue.found)}
    return account(result, catalogue.found), problems


def check(counts: Account, *, images: tuple[int, int], objects: tuple[int, int]) -> None:
    """images, objects: how many there are, and how many are dropped."""
    assert (counts.num_images_found, counts.num_images_dropped) == images
    assert (counts.num_objects_found, counts.num_objects_dropped) == objects
    assert counts.num_images_kept == images[0] - images[1]
    assert counts.num_objects_kept == objects[0] - objects[1]


def voc_unlisted(folder: Path) -> None:
    ex.voc(folder, train=STEMS[:5], val=STEMS[5:7], night=STEMS[7:9])


def test_images_in_no_list_are_told_with_their_objects(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, voc_unlisted)
    check(counts, images=(10, 3), objects=(NUM_OBJECTS, objects_of(*STEMS[7:])))
    assert problems == {f"JPEGImages/{stem}.jpg": "in no split" for stem in STEMS[7:]} | {
        "ImageSets/Main/night.txt": "not used: its name is none of train, val, test"
    }


def voc_incomplete(folder: Path) -> None:
    ex.labelimg(folder)
    (folder / "img00.jpg").unlink()
    (folder / "img01.xml").unlink()
    (folder / "img02.xml").write_text("<annotation>")
    (folder / "project.xml").write_text("<settings/>")


def test_images_without_xml_and_xml_without_images_are_told(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, voc_incomplete)
    readable = NUM_OBJECTS - objects_of("img01", "img02")
    check(counts, images=(9, 2), objects=(readable, objects_of("img00")))
    assert problems["img00.xml"] == "no image has its name"
    assert problems["img01.jpg"] == "there is no XML of its name"
    assert problems["img02.xml"].startswith("not well-formed XML")
    assert problems["project.xml"] == "the outermost element is <settings>, not <annotation>"


def yolo_mismatched(folder: Path) -> None:
    ex.yolo_with("names: [cat, dog]")(folder)
    (folder / "labels/train/img01.txt").rename(folder / "labels/train/IMG_0001.txt")
    (folder / "labels/train/img02.txt").write_bytes(b"\xff\xfe0 0.5")
    ex.images(folder / "images/night", STEMS[:1])
    ex.text(folder / "notes.txt", "shot in May")


def test_labels_without_an_image_and_folders_of_no_split_are_told(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, yolo_mismatched)
    check(counts, images=(11, 2), objects=(NUM_OBJECTS - objects_of("img02"), objects_of("img01")))
    assert problems["labels/train/IMG_0001.txt"] == "no image has its name"
    assert problems["labels/train/img02.txt"].startswith("not readable")
    assert problems["images/night/img00.jpg"] == "in no split"
    assert problems["notes.txt"] == "not used: neither labels nor a list of images"


STRAY = {
    "about.yaml": "by: me",
    "train.txt": "img00",
    "notes.json": "{}",
    "ImageSets/Layout/train.txt": "img00",
}


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (
            ex.labelimg,
            dict.fromkeys([*STRAY, "classes.txt"], "it is not Pascal VOC XML or a list in ImageSets/Main"),
        ),
        (ex.one_coco("labels.json", "data"), dict.fromkeys(STRAY, "it is not COCO JSON")),
        (
            ex.yolo_with("names: [cat, dog]"),
            {
                "about.yaml": "it has neither names nor splits",
                "notes.json": "it is not YOLO's",
                "train.txt": "neither labels nor a list of images",
                "ImageSets/Layout/train.txt": "neither labels nor a list of images",
            },
        ),
    ],
    ids=["voc", "coco", "yolo"],
)
def test_each_file_that_is_no_image_and_not_used_is_told(
    tmp_path: Path, write: Callable[[Path], None], expected: dict[str, str]
) -> None:
    def write_all(folder: Path) -> None:
        write(folder)
        for name, content in STRAY.items():
            ex.text(folder / name, content)

    counts, problems = told(tmp_path, write_all)
    check(counts, images=(10, 0), objects=(NUM_OBJECTS, 0))
    assert problems == {name: f"not used: {reason}" for name, reason in expected.items()}


def test_lists_of_class_names_beside_those_of_data_yaml_are_told(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        ex.yolo_with("names: [cat, dog]")(folder)
        ex.text(folder / "labels/classes.txt", "dog", "cat")

    _, problems = told(tmp_path, write)
    assert problems == {"labels/classes.txt": "not used: the class names are those of data.yaml"}


def yolo_lines(folder: Path) -> None:
    ex.beside(folder)
    lines = ["0 10 20 30 40", "0 0.5 0.5", "0 0.5 0.5 0 0.1", "7 0.5 0.5 0.1 0.1", "x 1 2 3 4"]
    ex.text(folder / "img09.txt", *lines)


def test_a_line_in_pixels_is_dropped_not_clipped(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, yolo_lines)
    check(counts, images=(10, 0), objects=(NUM_OBJECTS + 5, 5))
    assert problems["img09.txt"] == "zero size", "the last of five"


def many_without_objects(folder: Path) -> None:
    ex.beside(folder)
    for number in range(60):
        ex.text(folder / f"empty{number}.txt")
        (folder / f"empty{number}.jpg").write_bytes(b"")


def test_labels_are_recognised_after_many_empty_ones(tmp_path: Path) -> None:
    counts, _ = told(tmp_path, many_without_objects)
    check(counts, images=(70, 60), objects=(NUM_OBJECTS, 0))


def coco_mismatched(folder: Path) -> None:
    ex.cocos_own(folder)
    (folder / "train2017/img01.jpg").unlink()
    ex.images(folder / "train2017", ["img09"])
    ex.coco_json(folder / "annotations/person_keypoints_train2017.json", STEMS[:3])


def test_entries_without_an_image_and_images_without_an_entry_are_told(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, coco_mismatched)
    unused = objects_of(*STEMS[:3])
    # The second copy of img09 is in train's folder, but in no file.
    check(counts, images=(10, 1), objects=(NUM_OBJECTS + unused, objects_of("img01") + unused))
    (missing,) = (reason for file, reason in problems.items() if "img01" in file)
    assert missing.startswith("there is no such image in train2017/ or ")
    assert problems["train2017/img09.jpg"] == "in no split"
    assert problems["annotations/person_keypoints_train2017.json"].startswith("not used: ")


def test_names_with_accents_are_found_however_they_are_encoded(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, ex.accented_names)
    check(counts, images=(10, 0), objects=(NUM_OBJECTS, 0))
    assert not problems


def test_folders_of_splits_that_the_one_json_file_does_not_tell_apart_are_noted(tmp_path: Path) -> None:
    ex.images(tmp_path / "own/train", STEMS[:8])
    ex.images(tmp_path / "own/val", STEMS[8:])
    ex.coco_json(tmp_path / "own/annotations.json")
    catalogue, _ = prepared(data_params("folder"), tmp_path)
    assert len(catalogue.images["train"]) == 10
    assert catalogue.found.notes == ("images in val/ are in train, as annotations.json says",)


def test_a_name_that_several_images_have_is_told(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        ex.one_coco("annotations.json", "a")(folder)
        ex.images(folder / "b", STEMS[:1])

    _, problems = told(tmp_path, write)
    assert problems["annotations.json (img00.jpg)"].endswith("nor a single one of this name elsewhere")


@pytest.mark.parametrize("write", ex.UNANNOTATED.values(), ids=ex.UNANNOTATED.keys())
def test_a_test_split_without_annotations_is_not_used(tmp_path: Path, write: Callable[[Path], None]) -> None:
    counts, problems = told(tmp_path, write)
    check(counts, images=(10, 2), objects=(objects_of(*STEMS[:8]), 0))
    assert any("not used: " in reason and "annot" in reason for reason in problems.values())


def test_a_line_without_an_image_is_told_even_if_its_list_is_not_used(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        ex.valid_txt(folder)
        ex.text(folder / "valid.txt", "images/img08.jpg", "images/gone.jpg")
        (folder / "labels/img08.txt").unlink()

    _, problems = told(tmp_path, write)
    assert problems["val"] == "not used: none of its images is annotated"
    assert problems["valid.txt"] == "there is no image images/gone.jpg"


def test_a_val_of_the_images_of_train_is_not_used(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, ex.coco128)
    check(counts, images=(10, 0), objects=(NUM_OBJECTS, 0))
    assert problems == {"val": "not used: its images are those of train"}


def mixed_images(folder: Path) -> None:
    ex.labelimg(folder)
    (folder / "img00.jpg").write_bytes(b"<html>")
    (folder / "img01.jpg").rename(folder / "img01.heic")
    (folder / "extra.bmp").write_bytes(encode(picture(99), "BMP"))


def test_images_that_do_not_decode_are_told_with_their_objects(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, mixed_images)
    check(counts, images=(11, 2), objects=(NUM_OBJECTS, objects_of("img00")))
    assert problems["extra.bmp"] == "there is no XML of its name"


def test_the_same_image_in_two_splits_counts_once(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        ex.voc(folder, train=STEMS[:8], val=STEMS[7:])

    counts, problems = told(tmp_path, write)
    check(counts, images=(10, 0), objects=(NUM_OBJECTS, 0))
    assert problems == {"JPEGImages/img07.jpg": "is listed for val as well"}


@pytest.mark.parametrize("write", [ex.roboflow_voc, ex.roboflow_yolo, ex.roboflow_coco])
def test_images_of_a_test_split_that_folds_replace_are_told(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "own")
    catalogue, result = prepared(data_params("folder", folds=2), tmp_path)
    test = objects_of(*STEMS[8:])
    check(account(result, catalogue.found), images=(10, 2), objects=(NUM_OBJECTS, test))
    reasons = [problem.reason for problem in result.splits["test"].problems]
    assert reasons == ["not used: data.folds makes the test split"] * 2
    raise_if_unusable(result, strict=True, report="", unused=catalogue.found.unused)


def test_images_that_are_held_out_of_all_folds_are_told(tmp_path: Path) -> None:
    ex.labelimg(tmp_path / "own")
    _, plain = prepared(data_params("folder"), tmp_path, test_fraction=0.2)
    held_out = {sample.id: len(sample.labels) for sample in plain.splits["test"].samples}
    folds = data_params("folder", folds=2)
    catalogue, result = prepared(folds, tmp_path, test_fraction=0.2)
    check(account(result, catalogue.found), images=(10, 2), objects=(NUM_OBJECTS, sum(held_out.values())))
    used = {sample.id for split in result.splits.values() for sample in split.samples}
    assert len(used) == 8 and used.isdisjoint(held_out)
    raise_if_unusable(result, strict=True, report="", unused=catalogue.found.unused)
    # The very file of one that is held out, under the name of one that is not, would be trained on.
    original, copy = (next(tmp_path.glob(f"own/{sorted(names)[0]}*.jpg")) for names in (held_out, used))
    shutil.copy(original, copy)
    _, result = prepared(folds, tmp_path, test_fraction=0.2)
    (problem,) = (found for _, found in all_problems(result) if found.action == "dropped")
    assert problem.file.endswith(copy.name)
    assert problem.reason == f"the same image as {original.name}, which is in no fold"
    assert len({sample.id for split in result.splits.values() for sample in split.samples}) == 7


def test_two_formats_are_refused_with_the_way_out(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        ex.labelimg(folder)
        ex.txts(folder)

    write(tmp_path / "own")
    with pytest.raises(UserError, match="holds Pascal VOC XML and YOLO text files; set data.source"):
        prepared(data_params("folder"), tmp_path)
    for source in ("voc_dir", "yolo_dir"):
        catalogue, _ = prepared(data_params(source), tmp_path)  # type: ignore[arg-type]
        assert catalogue.found.num_objects == NUM_OBJECTS


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("a.xml", "<annotations><image/></annotations>", "a format of CVAT for images that is not read"),
        ("a.json", '{"shapes": [], "imagePath": "a.jpg"}', "a format of LabelMe that is not read"),
        ("labels.txt", "a cat", "other files: .txt; export it"),
    ],
)
def test_a_format_that_is_not_read_is_named(tmp_path: Path, file: str, content: str, expected: str) -> None:
    ex.images(tmp_path / "own")
    ex.text(tmp_path / "own" / file, content)
    with pytest.raises(UserError, match=f"10 images, but no annotations in .*{expected}"):
        prepared(data_params("folder"), tmp_path)


@pytest.mark.parametrize(
    ("source", "write", "expected"),
    [
        ("coco_json", ex.labelimg, "holds Pascal VOC XML, not COCO JSON; set data.source: voc_dir"),
        ("voc_dir", ex.beside, "holds YOLO text files, not Pascal VOC XML; set data.source: yolo_dir"),
        ("yolo_dir", ex.cocos_own, "holds COCO JSON, not YOLO text files; set data.source: coco_json"),
    ],
)
def test_a_folder_of_another_format_is_named(
    tmp_path: Path, source: Source, write: Callable[[Path], None], expected: str
) -> None:
    write(tmp_path / "own")
    with pytest.raises(UserError, match=expected):
        prepared(data_params(source), tmp_path)


def test_two_lists_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("first", "second"):
        ex.cvat_yolo(tmp_path / "own" / name)
    with pytest.raises(
        UserError, match=r"both first/train.txt and second/train.txt are lists of train; name"
    ):
        prepared(data_params("folder"), tmp_path)


def test_no_image_left_to_train_on_is_one_line(tmp_path: Path) -> None:
    ex.yolo_with("names: [cat, dog]")(tmp_path / "own")
    for image in (tmp_path / "own/images/train").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="folders of images: found test, val, but none to train on"):
        prepared(data_params("folder"), tmp_path)
