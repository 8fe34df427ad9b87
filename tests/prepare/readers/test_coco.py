"""COCO's JSON: boxes, gaps between categories, crowds, and what tools and people get wrong in it."""

from pathlib import Path
from typing import Any

import pytest
from coco_folder import CATEGORIES, annotation, image, write_coco, write_images, write_json

from ssd.errors import UserError
from ssd.prepare.annotations import Catalogue, ImageRef, Problem
from ssd.prepare.checks import mend_box
from ssd.prepare.readers.coco import read_coco
from ssd.prepare.readers.folder_files import read_folder

FILE = "annotations/instances_train2017.json"


def read(
    folder: Path, images: list[Any], annotations: list[Any], categories: list[Any] | None = None
) -> Catalogue:
    """Write and read a data set whose images, if they are named a.jpg or b.jpg, are there."""
    write_images(folder / "train2017", "a.jpg", "b.jpg")
    write_json(folder / FILE, images, annotations, CATEGORIES if categories is None else categories)
    return read_coco(read_folder(folder))


def only_image(catalogue: Catalogue) -> ImageRef:
    (ref,) = catalogue.images["train"]
    return ref


def message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_coco(read_folder(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_boxes_classes_and_sizes_of_an_image(tmp_path: Path) -> None:
    entries = [annotation(1, 7), annotation(2, 7, category_id=1, bbox=[0, 0, 40, 30.5], iscrowd=1)]
    ref = only_image(read(tmp_path, [image(7, "a.jpg")], entries))
    assert ref.path == tmp_path / "train2017/a.jpg"
    assert (ref.id, ref.image_file) == ("train2017/a.jpg", "train2017/a.jpg")
    assert ref.annotation_file == f"{FILE} (a.jpg)"
    assert ref.annotation.size == (30, 40)
    dog, crowd = ref.annotation.objects
    assert (dog.name, dog.box, dog.written, dog.crowd) == ("dog", (1, 2, 9, 12), (1, 2, 8, 10), False)
    assert (crowd.name, crowd.box, crowd.crowd) == ("person", (0, 0, 40, 30.5), True)


def test_classes_are_all_categories_of_train_in_order_of_their_ids(tmp_path: Path) -> None:
    write_coco(tmp_path, train="a", val="b")
    assert read_coco(read_folder(tmp_path)).class_names == ("person", "dog", "brush")


def test_categories_of_one_name_are_one_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    entries = [annotation(1, 7, category_id=0), annotation(2, 7, category_id=2, bbox=[1, 1, 5, 5])]
    catalogue = read(tmp_path, [image(7, "a.jpg")], entries, categories)
    assert catalogue.class_names == ("dog", "cat")
    assert [found.name for found in only_image(catalogue).annotation.objects] == ["dog", "dog"]


def test_each_file_has_category_ids_of_its_own(tmp_path: Path) -> None:
    write_coco(tmp_path, train="a", val="b")
    other = [{"id": 3, "name": "person"}, {"id": 4, "name": "dog"}]
    val = [image(1, "b.jpg")], [annotation(1, 1, category_id=3)]
    write_json(tmp_path / "annotations/instances_val2017.json", *val, other)
    (ref,) = read_coco(read_folder(tmp_path)).images["val"]
    assert [found.name for found in ref.annotation.objects] == ["person"]


def test_an_image_without_annotations_is_kept(tmp_path: Path) -> None:
    catalogue = read(tmp_path, [image(7, "a.jpg")], [])
    assert only_image(catalogue).annotation.objects == ()
    assert catalogue.problems == {"train": []}


def test_size_and_crowd_are_optional(tmp_path: Path) -> None:
    entry = annotation(1, 7)
    del entry["iscrowd"]
    ref = only_image(read(tmp_path, [{"id": 7, "file_name": "a.jpg"}], [entry]))
    assert ref.annotation.size is None
    assert not ref.annotation.objects[0].crowd


def test_a_sum_in_floating_point_does_not_reach_over_the_edge(tmp_path: Path) -> None:
    ref = only_image(read(tmp_path, [image(7, "a.jpg")], [annotation(1, 7, bbox=[39.7, 0, 0.3, 0.7])]))
    assert mend_box(ref.annotation.objects[0].box, (30, 40)) == ((39.7, 0, 40, 0.7), [])
    assert 0.1 + 0.2 != 0.3, "such sums exist"


@pytest.mark.parametrize(
    ("bbox", "fault"), [([5, 5, 0, 9], "zero size"), ([99, 5, 9, 9], "outside the image")]
)
def test_boxes_without_area_and_outside_are_for_the_check_to_drop(
    tmp_path: Path, bbox: list[float], fault: str
) -> None:
    ref = only_image(read(tmp_path, [image(7, "a.jpg")], [annotation(1, 7, bbox=bbox)]))
    assert mend_box(ref.annotation.objects[0].box, (30, 40)) == (None, [fault])


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({"category_id": 2}, "no category has its category_id, 2"),
        ({"category_id": [1]}, r"no category has its category_id, [1]"),
        ({"bbox": []}, "bbox is [], not four finite numbers"),
        ({"bbox": [1, 2, "x", 4]}, "bbox is [1, 2, 'x', 4], not four finite numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox is [1, 2, nan, 4], not four finite numbers"),
        ({"bbox": None, "segmentation": []}, "bbox is None, not four finite numbers"),
        (
            {"bbox": None, "segmentation": [[1]]},
            "has no bbox, and its segmentation is neither polygons nor uncompressed runs",
        ),
    ],
)
def test_an_object_that_cannot_be_read_is_a_flaw_of_its_image(
    tmp_path: Path, changes: dict[str, Any], flaw: str
) -> None:
    entries = [annotation(5, 7, **changes), annotation(6, 7)]
    ref = only_image(read(tmp_path, [image(7, "a.jpg")], entries))
    assert len(ref.annotation.objects) == 1
    assert ref.annotation.flaws == (f"annotation 5: {flaw}",)


def test_annotations_of_no_image_are_problems(tmp_path: Path) -> None:
    entries = [annotation(5, 8), annotation(6, 7), "text", {"bbox": [1, 2, 3, 4]}]
    catalogue = read(tmp_path, [image(7, "a.jpg")], entries)
    assert len(only_image(catalogue).annotation.objects) == 1
    assert catalogue.problems["train"] == [
        Problem(FILE, None, "annotation 5: no image has its image_id, 8", "dropped", num_objects=1),
        Problem(FILE, None, "annotation number 3: no image has its image_id, None", "dropped", num_objects=1),
        Problem(FILE, None, "annotation number 4: no image has its image_id, None", "dropped", num_objects=1),
    ]
    assert catalogue.found.num_objects == 4


def test_a_missing_image_is_a_problem_that_tells_where_it_was_looked_for(tmp_path: Path) -> None:
    catalogue = read(tmp_path, [image(7, "a.jpg"), image(8, "c.jpg")], [])
    assert only_image(catalogue).id == "train2017/a.jpg"
    (problem,) = catalogue.problems["train"]
    assert problem.file == f"{FILE} (c.jpg)"
    assert problem.reason.startswith("there is no such image in train2017/ or ")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "/etc/hostname",
        "a/../../b.jpg",
        "..\\secret.jpg",
        "a\0",
        "",
        5,
        "x" * 300,
        "\ud800.jpg",
    ],
)
def test_file_names_do_not_lead_out_of_the_folder(tmp_path: Path, name: object) -> None:
    write_images(tmp_path, "secret.jpg")
    catalogue = read(tmp_path / "data", [image(7, name)], [annotation(1, 7)])  # type: ignore[arg-type]
    assert catalogue.images == {"train": []}
    (problem,) = catalogue.problems["train"]
    assert "no path of a file; image 7" in problem.reason or "there is no such image in" in problem.reason
    assert (problem.num_images, problem.num_objects) == (0, 1)
    problem.file.encode()


def test_an_image_listed_twice_counts_once(tmp_path: Path) -> None:
    catalogue = read(tmp_path, [image(7, "a.jpg"), image(8, "a.jpg")], [annotation(1, 7)])
    assert len(only_image(catalogue).annotation.objects) == 1
    assert [problem.reason for problem in catalogue.problems["train"]] == ["image 8 is listed twice"]


@pytest.mark.parametrize(
    ("images", "categories", "expected"),
    [
        ([image(7, "a.jpg"), image(7, "b.jpg")], CATEGORIES, "two entries have the image id 7"),
        ([image(7, "a.jpg")], [CATEGORIES[0], CATEGORIES[0]], "two entries have the category id 18"),
        ([{"file_name": "a.jpg"}], CATEGORIES, "image number 1 has no integer as id"),
        ([image(7, "a.jpg")], [{"id": 1}], "category 1 has no name"),
    ],
)
def test_ids_that_cannot_tell_apart_are_errors(
    tmp_path: Path, images: list[Any], categories: list[Any], expected: str
) -> None:
    write_json(tmp_path / FILE, images, [], categories)
    assert expected in message(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"images": [', "not JSON"),
        (b"\xff\xfe\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not annotations in COCO's format"),
        (b'{"images": [], "categories": []}', "not annotations in COCO's format"),
    ],
)
def test_what_is_not_cocos_json_is_an_error_of_one_line(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    write_json(tmp_path / FILE, [], [])
    (tmp_path / FILE).write_bytes(content)
    found = message(tmp_path)
    assert expected in found
    assert FILE in found


def test_a_key_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    write_json(tmp_path / FILE, [image(7, "a.jpg")], [annotation(1, 7)])
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text[:-1] + ', "annotations": []}')
    assert "the key 'annotations' is there twice" in message(tmp_path)


def test_a_class_name_that_is_no_unicode_is_an_error(tmp_path: Path) -> None:
    write_json(tmp_path / FILE, [image(7, "a.jpg")], [], [{"id": 1, "name": "\ud800"}])
    assert "is not valid Unicode" in message(tmp_path)


def test_the_box_around_a_mask_in_runs(tmp_path: Path) -> None:
    """4 rows of 5 columns, column by column: ones in rows 1 and 2 of columns 1 and 2, and one in column 3."""
    runs = {"size": [4, 5], "counts": [5, 2, 2, 2, 1, 1, 7]}
    entries = [annotation(1, 7, bbox=None, segmentation=runs)]
    (found,) = only_image(read(tmp_path, [image(7, "a.jpg")], entries)).annotation.objects
    assert found.box == (1, 0, 4, 3)
