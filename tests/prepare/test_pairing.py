"""Each image has the boxes of its own annotation file, wherever else files of its name are."""

from collections.abc import Callable
from pathlib import Path

import exports as ex
import pytest
from data_params import data_params
from exports import CLASSES, NUM_OBJECTS, SIZES, STEMS, TRUTH
from test_exports import prepared
from test_unused_files import check, objects_of, told

from ssd.errors import UserError
from ssd.prepare.annotations import Catalogue
from ssd.prepare.readers.pairing import most_alike


def wrong_images(root: Path, write: Callable[[Path], None]) -> tuple[Catalogue, list[str]]:
    """The catalogue, and the images with other boxes than theirs; the size of an image tells which it is."""
    write(root / "own")
    catalogue, result = prepared(data_params("folder"), root)
    truth = {(height, width): TRUTH[stem] for stem, (width, height) in SIZES.items()}
    wrong = []
    for split in {id(split): split for split in result.splits.values()}.values():
        for sample in split.samples:
            boxes = [found for _, box in truth[sample.size] for found in box]
            if [found for box in sample.boxes for found in box] != pytest.approx(boxes, abs=0.011):
                wrong.append(sample.id)
    return catalogue, wrong


def numbered(
    image_folders: tuple[str, str], label_folders: tuple[str, str], write: Callable[..., None], suffix: str
) -> Callable[[Path], None]:
    """Five images in each of two folders, named 0 to 4 in both."""

    def write_all(folder: Path) -> None:
        for number, stem in enumerate(STEMS):
            ex.images(folder, [stem])
            write(folder, [stem])
            for place, end in ((image_folders, ".jpg"), (label_folders, suffix)):
                target = folder / place[number // 5] / f"z{number % 5}{end}"
                target.parent.mkdir(parents=True, exist_ok=True)
                (folder / f"{stem}{end}").rename(target)
        ex.text(folder / "classes.txt", *CLASSES)

    return write_all


@pytest.mark.parametrize(("write", "suffix"), [(ex.xmls, ".xml"), (ex.txts, ".txt")], ids=["voc", "yolo"])
@pytest.mark.parametrize(
    ("images", "labels", "splits"),
    [
        (("images/train", "images/val"), ("notes/train", "notes/val"), {"train": 5, "val": 5}),
        (("train/images", "val/images"), ("train/notes", "val/notes"), {"train": 5, "val": 5}),
        (("photos/cam1", "photos/cam2"), ("notes/cam1", "notes/cam2"), {"train": 10}),
        (("", "a"), ("", "a"), {"train": 10}),
    ],
)
def test_images_of_one_name_in_two_folders_keep_their_own_boxes(
    tmp_path: Path,
    write: Callable[..., None],
    suffix: str,
    images: tuple[str, str],
    labels: tuple[str, str],
    splits: dict[str, int],
) -> None:
    catalogue, wrong = wrong_images(tmp_path, numbered(images, labels, write, suffix))
    assert {split: len(refs) for split, refs in catalogue.images.items()} == splits
    assert not wrong


def spoil(folder: Path, old: str, new: str) -> None:
    for file in folder.iterdir():
        file.write_text(file.read_text().replace(old, new))


def with_old_xml(folder: Path) -> None:
    ex.labelimg(folder)
    ex.xmls(folder / "backup")
    spoil(folder / "backup", "<xmin>", "<xmin>1")


def with_old_txt(folder: Path) -> None:
    ex.beside(folder)
    ex.txts(folder / "backup")
    spoil(folder / "backup", " 0.", " 0.1")


@pytest.mark.parametrize("write", [with_old_xml, with_old_txt])
def test_annotations_beside_the_images_count_before_older_ones(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    catalogue, wrong = wrong_images(tmp_path, write)
    assert not wrong
    unused = {problem.file: problem for problem in catalogue.found.unused}
    suffix = ".xml" if write is with_old_xml else ".txt"
    assert "is used for img00.jpg" in unused[f"backup/img00{suffix}"].reason
    assert catalogue.found.num_objects == 2 * NUM_OBJECTS
    assert sum(problem.num_objects for problem in unused.values()) == NUM_OBJECTS


def test_two_folders_of_xml_that_could_both_be_meant_are_refused(tmp_path: Path) -> None:
    ex.label_studio_voc(tmp_path / "own")
    ex.xmls(tmp_path / "own/Annotations_old")
    with pytest.raises(UserError, match=r"each of Annotations/img00.xml, Annotations_old/img00.xml could be"):
        prepared(data_params("folder"), tmp_path)


def label_of_another_split(folder: Path) -> None:
    ex.yolo_with("names: [cat, dog]")(folder)
    (folder / "images/val/img06.jpg").unlink()
    (folder / "labels/train/img00.txt").unlink()
    (folder / "images/train/img00.jpg").rename(folder / "images/train/img06.jpg")


def test_a_label_file_in_another_split_is_not_taken(tmp_path: Path) -> None:
    counts, problems = told(tmp_path, label_of_another_split)
    check(counts, images=(9, 0), objects=(NUM_OBJECTS - objects_of("img00"), objects_of("img06")))
    assert problems == {
        "labels/val/img06.txt": "it is not clear which image it is for: images/train/img06.jpg"
    }


def jpg_and_png(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def write_all(folder: Path) -> None:
        write(folder)
        ex.images(folder, STEMS[:1], ".png", "PNG")
        ex.images(folder / "a", STEMS[:1])

    return write_all


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (jpg_and_png(ex.labelimg), "another image has the same XML"),
        (jpg_and_png(ex.beside), "img00.jpg has the same label file"),
    ],
    ids=["voc", "yolo"],
)
def test_a_png_beside_the_jpg_of_its_name_is_dropped(
    tmp_path: Path, write: Callable[[Path], None], reason: str
) -> None:
    counts, problems = told(tmp_path, write)
    assert problems["img00.png"] == reason
    assert counts.num_images_found == 12 == counts.num_images_kept + counts.num_images_dropped
    assert counts.num_objects_kept == counts.num_objects_found == NUM_OBJECTS


def copied_among_the_labels(folder: Path) -> None:
    ex.label_studio_yolo(folder)
    ex.images(folder / "labels", STEMS[:1], ".png", "PNG")


def test_a_label_file_is_of_one_image_alone(tmp_path: Path) -> None:
    counts, _ = told(tmp_path, copied_among_the_labels)
    check(counts, images=(11, 0), objects=(NUM_OBJECTS, 0))


@pytest.mark.parametrize(("suffix", "format"), [(".bmp", "BMP"), (".png", "PNG")])
def test_of_images_of_one_name_the_one_with_the_most_usual_suffix_is_used(
    tmp_path: Path, suffix: str, format: str
) -> None:
    def write(folder: Path) -> None:
        ex.label_studio_yolo(folder)
        ex.images(folder / "images", STEMS[:1], suffix, format)

    counts, problems = told(tmp_path, write)
    check(counts, images=(11, 1), objects=(NUM_OBJECTS, 0))
    assert problems[f"images/img00{suffix}"] == "images/img00.jpg has the same label file"


def unlisted_twins(folder: Path) -> None:
    ex.valid_txt(folder)
    (folder / "valid.txt").unlink()
    ex.images(folder / "images", STEMS[8:9], ".png", "PNG")


def test_objects_of_a_jpg_and_png_in_no_split_count_once(tmp_path: Path) -> None:
    counts, _ = told(tmp_path, unlisted_twins)
    check(counts, images=(11, 3), objects=(NUM_OBJECTS, objects_of(*STEMS[8:])))


@pytest.mark.parametrize(
    ("path", "candidates", "expected"),
    [
        ("xml/cam1/a.xml", ["b/cam2/a.jpg", "b/cam1/a.jpg"], "b/cam1/a.jpg"),
        ("set/xml/a.xml", ["other/a.jpg", "set/images/a.jpg"], "set/images/a.jpg"),
        ("a.xml", ["sub/a.jpg", "a.jpg"], "a.jpg"),
        ("a.xml", ["one/a.jpg", "two/a.jpg"], None),
        ("train/a.xml", ["val/a.jpg"], None),
        ("train/a.xml", ["val/a.jpg", "photos/a.jpg"], "photos/a.jpg"),
        ("a.xml", [], None),
    ],
)
def test_the_file_with_the_most_similar_folders_is_meant(
    path: str, candidates: list[str], expected: str | None
) -> None:
    assert most_alike(path, candidates) == expected
