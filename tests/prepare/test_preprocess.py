"""From lists to samples: what becomes of good images and of bad ones, and that nothing depends on chance."""

from pathlib import Path

import numpy as np
import pytest
import torch
from coco_folder import annotation, image, write_images, write_json
from data_params import data_params, preprocess_params
from PIL import Image
from torchvision.io import ImageReadMode, decode_image
from voc_folder import (
    DOG,
    annotation_xml,
    encode,
    object_xml,
    picture,
    write_folder,
    write_image,
    write_lists,
)

from ssd.errors import UserError
from ssd.loading.tensor_file import TensorFile
from ssd.params import PreprocessParams
from ssd.prepare import decode
from ssd.prepare import preprocess as preprocessing
from ssd.prepare.annotations import AnnotatedObject, Annotation, Catalogue, Found, ImageRef, Problem
from ssd.prepare.decode import Spool
from ssd.prepare.preprocess import Preprocessed, all_problems, declared_classes, raise_if_unusable
from ssd.prepare.readers.coco import read_coco
from ssd.prepare.readers.folder_files import read_folder
from ssd.prepare.readers.voc import VocList, read_voc
from ssd.prepare.splits import make_splits
from ssd.prepare.summary import list_problems, summarise
from ssd.tensor_writer import write_tensor_file

Lists = dict[str, list[VocList]]

FOUND = Found(num_images=0, num_objects=0)
"""Where what the data set holds is not asked about."""


def params(**changes: object) -> PreprocessParams:
    return preprocess_params(workers=1, **changes)


def preprocess(lists: Lists, class_names: list[str], params: PreprocessParams) -> Preprocessed:
    """From lists in VOC layout to samples; images wait in the folder of the lists' folder."""
    listing = make_splits(read_voc(lists), data_params("voc_dir"), params)
    return preprocessing.preprocess(listing, class_names, params, lists["train"][0].folder.parent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def lists(folder: Path) -> Lists:
    return write_folder(folder, {"train": ["a", "b", "c"], "val": ["v"], "test": ["t", "u"]})


def test_a_faultless_data_set_goes_through_as_it_is(folder: Path, lists: Lists) -> None:
    result = preprocess(lists, [], params())
    assert result.class_names == ["dog"]
    assert all_problems(result) == []
    assert {name: [s.id for s in split.samples] for name, split in result.splits.items()} == {
        "train": ["a", "b", "c"],
        "val": ["v"],
        "test": ["t", "u"],
    }
    for split in result.splits.values():
        for sample in split.samples:
            assert sample.encoded == (folder / f"JPEGImages/{sample.id}.jpg").read_bytes()
            assert sample.size == (30, 40)
            assert sample.boxes == [(4, 4, 20, 20)]
            assert (sample.labels, sample.difficult, sample.crowd) == ([1], [False], [False])
    raise_if_unusable(result, strict=True, report="problems.json")


def test_an_image_without_objects_is_kept(folder: Path, lists: Lists) -> None:
    write_image(folder, "b", None, annotation_xml())
    result = preprocess(lists, [], params())
    assert [sample.labels for sample in result.splits["train"].samples] == [[1], [], [1]]
    assert all_problems(result) == []


def test_boxes_shrink_with_their_image(folder: Path, lists: Lists) -> None:
    corners = (11, 21, 51, 101)
    image = encode(picture(width=90, height=121))
    write_image(folder, "a", image, annotation_xml(object_xml("dog", corners), width=90, height=121))
    split = preprocess(lists, [], params(max_side=60)).splits["train"]
    (sample, *_) = split.samples
    assert sample.size == (60, 45)
    # Normalised, the boxes are as before.
    before = np.array([10, 20, 51, 101]) / [90, 121, 90, 121]
    assert np.allclose(np.array(sample.boxes[0]) / [45, 60, 45, 60], before)
    assert (split.num_shrunk, split.num_reencoded) == (1, 1)


BROKEN = {
    "no image": (None, annotation_xml(DOG), "own/JPEGImages/b", "there is no image of this name"),
    "no annotation": (encode(picture(1)), None, "own/Annotations/b.xml", "there is no such annotation"),
    "truncated": (encode(picture(1))[:-50], annotation_xml(DOG), "own/JPEGImages/b.jpg", "does not decode"),
    "no image at all": (b"<html>", annotation_xml(DOG), "own/JPEGImages/b.jpg", "not one of JPEG"),
    "broken XML": (encode(picture(1)), b"<annotation>", "own/Annotations/b.xml", "not well-formed XML"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_image_that_cannot_be_used_is_dropped_and_told(folder: Path, lists: Lists, case: str) -> None:
    image, annotation, file, reason = BROKEN[case]
    (folder / "JPEGImages/b.jpg").unlink()
    (folder / "Annotations/b.xml").unlink()
    write_image(folder, "b", image, annotation)
    result = preprocess(lists, [], params())
    assert [sample.id for sample in result.splits["train"].samples] == ["a", "c"]
    ((split, problem),) = all_problems(result)
    assert (split, problem.file, problem.box, problem.action) == ("train", file, None, "dropped")
    assert problem.reason.startswith(reason)


def test_an_image_that_does_not_decode_takes_its_objects_with_it(folder: Path, lists: Lists) -> None:
    unreadable = "<object><name>dog</name></object>"
    write_image(folder, "b", b"<html>", annotation_xml(DOG, object_xml("dog", (1, 1, 9, 9)), unreadable))
    ((_, problem),) = all_problems(preprocess(lists, [], params()))
    assert (problem.num_images, problem.num_objects) == (1, 3)


def test_more_pixels_than_allowed_drop_the_image(
    folder: Path, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(folder, "b", encode(picture(width=41)), annotation_xml(DOG, width=41))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1200)
    result = preprocess(lists, [], params())
    assert [problem.file for _, problem in all_problems(result)] == ["own/JPEGImages/b.jpg"]


def test_too_little_memory_for_an_image_is_no_damage(lists: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decode, "pack_image", out_of_memory)
    with pytest.raises(UserError, match=r"\.jpg: too little memory.*preprocess\.workers"):
        preprocess(lists, [], params())


@pytest.mark.parametrize("num_shards", [1, 2, 3, 8])
def test_shards_hold_all_samples_in_order(lists: Lists, num_shards: int) -> None:
    for split in preprocess(lists, [], params()).splits.values():
        shards = split.shards(num_shards)
        assert len(shards) == num_shards
        assert [sample for shard in shards for sample in shard] == split.samples


@pytest.mark.parametrize("damage", ["annotation", "image"])
def test_one_change_changes_one_shard(folder: Path, lists: Lists, damage: str) -> None:
    lists = write_folder(folder, {"train": [f"{number:02d}" for number in range(12)], "test": ["t"]})
    before = preprocess(lists, [], params()).splits["train"].shards(4)
    if damage == "annotation":
        write_image(folder, "04", encode(picture()), annotation_xml(object_xml("dog", (1, 1, 9, 9))))
    else:
        (folder / "JPEGImages/04.jpg").write_bytes(b"no image any more")
    after = preprocess(lists, [], params()).splits["train"].shards(4)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True, True]


PHOTO = Image.new("RGB", (400, 300))  # as the camera stores it
PHOTO.paste((255, 255, 255), (40, 60, 200, 160))
SHOWN_BOX = (140, 40, 240, 200)  # of the photo turned by a quarter, to 300x400
PHOTO_EXIF = Image.Exif()
PHOTO_EXIF[0x0112] = 6


def true_box(tensors: Preprocessed) -> tuple[float, ...]:
    """Where the only training image is white, as training decodes it; its one box must be there."""
    (sample,) = tensors.splits["train"].samples
    pixels = decode_image(torch.frombuffer(bytearray(sample.encoded), dtype=torch.uint8), ImageReadMode.RGB)
    rows, columns = (pixels[0] > 127).any(dim=1).nonzero(), (pixels[0] > 127).any(dim=0).nonzero()
    return columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1


@pytest.mark.parametrize(
    ("corners", "width", "height", "num_mended"),
    [((41, 61, 200, 160), 400, 300, 1), ((141, 41, 240, 200), 300, 400, 0)],
    ids=["counted as stored", "counted as shown"],
)
def test_voc_boxes_are_on_a_photo_that_exif_turns(
    folder: Path, lists: Lists, corners: tuple[int, int, int, int], width: int, height: int, num_mended: int
) -> None:
    xml = annotation_xml(object_xml("dog", corners), width=width, height=height)
    write_image(folder, "a", encode(PHOTO, exif=PHOTO_EXIF), xml)
    write_lists(folder, {"train": ["a"]})
    result = preprocess(lists, [], params())
    assert [box for sample in result.splits["train"].samples for box in sample.boxes] == [SHOWN_BOX]
    assert true_box(result) == SHOWN_BOX
    assert result.splits["train"].num_reencoded == 1
    assert [problem.action for _, problem in all_problems(result)] == ["mended"] * num_mended
    assert all("boxes turned" in problem.reason for _, problem in all_problems(result))


def test_coco_boxes_are_on_a_photo_that_exif_turns_and_shrink_with_it(tmp_path: Path) -> None:
    write_images(tmp_path / "raw/train", "a.jpg")
    (tmp_path / "raw/train/a.jpg").write_bytes(encode(PHOTO, exif=PHOTO_EXIF))
    entries = [annotation(1, 1, bbox=[40, 60, 160, 100])]
    entry = {**image(1, "a.jpg"), "width": 400, "height": 300}
    write_json(tmp_path / "raw/annotations/instances_train.json", [entry], entries)
    listing = make_splits(read_coco(read_folder(tmp_path / "raw")), data_params("coco_json"), params())
    result = preprocessing.preprocess(listing, ["dog"], params(max_side=200), tmp_path)
    (sample,) = result.splits["train"].samples
    assert sample.size == (200, 150)
    assert sample.boxes == [(70, 20, 120, 100)]
    assert true_box(result) == (70, 20, 120, 100)


def test_normalised_boxes_are_on_a_photo_that_exif_turns(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode(PHOTO, exif=PHOTO_EXIF))
    box = 140 / 300, 40 / 400, 240 / 300, 200 / 400
    found = Annotation(None, (AnnotatedObject("dog", box, box),), normalised=True)
    ref = ImageRef("a", tmp_path / "a.jpg", "a.jpg", "a.txt", found)
    catalogue = Catalogue({"train": [ref]}, {"train": []}, FOUND)
    listing = make_splits(catalogue, data_params("yolo_dir"), params(val_fraction=0.0))
    result = preprocessing.preprocess(listing, ["dog"], params(), tmp_path)
    assert result.splits["train"].samples[0].boxes == [SHOWN_BOX]
    assert true_box(result) == SHOWN_BOX
    assert all_problems(result) == []


def test_problems_of_boxes_are_told_with_their_split(folder: Path, lists: Lists) -> None:
    bad = (
        object_xml("dog", (9, 9, 9, 9)),
        object_xml("dog", (20, 9, 10, 19)),
        object_xml("cow", (1, 1, 9, 9)),
    )
    write_image(folder, "t", None, annotation_xml(DOG, *bad))
    result = preprocess(lists, ["dog"], params())
    assert all_problems(result) == [
        ("test", Problem("own/Annotations/t.xml", (9, 9, 9, 9), "zero size", "dropped", num_objects=1)),
        ("test", Problem("own/Annotations/t.xml", (20, 9, 10, 19), "corners in the wrong order", "mended")),
        (
            "test",
            Problem("own/Annotations/t.xml", (1, 1, 9, 9), "unknown class 'cow'", "dropped", num_objects=1),
        ),
    ]
    assert len(result.splits["test"].samples[0].boxes) == 2


def test_the_same_bytes_under_two_names_stay_in_test_only(folder: Path, lists: Lists) -> None:
    for stem in ("b", "v"):
        write_image(folder, stem, (folder / "JPEGImages/t.jpg").read_bytes(), annotation_xml(DOG))
    write_image(folder, "c", (folder / "JPEGImages/a.jpg").read_bytes(), annotation_xml(DOG))
    result = preprocess(lists, [], params())
    assert {name: [s.id for s in split.samples] for name, split in result.splits.items()} == {
        "train": ["a", "c"],  # twice within train: that leaks nothing
        "val": [],
        "test": ["t", "u"],
    }
    reason = "the same image as own/JPEGImages/t.jpg in test"
    assert all_problems(result) == [
        ("train", Problem("own/JPEGImages/b.jpg", None, reason, "dropped", num_images=1, num_objects=1)),
        ("val", Problem("own/JPEGImages/v.jpg", None, reason, "dropped", num_images=1, num_objects=1)),
    ]


def test_where_test_is_val_the_two_are_one(lists: Lists) -> None:
    result = preprocess({"train": lists["train"], "val": lists["test"]}, [], params())
    assert result.test_is_val
    assert result.splits["val"] is result.splits["test"]
    assert [sample.id for sample in result.splits["test"].samples] == ["t", "u"]
    assert all_problems(result) == []
    assert "the test split is the val split" in str(summarise(result, FOUND)["notes"])


def test_problems_of_a_test_that_is_val_are_told_once(folder: Path, lists: Lists) -> None:
    write_image(folder, "t", b"", None)
    result = preprocess({"train": lists["train"], "val": lists["test"]}, [], params())
    assert [split for split, _ in all_problems(result)] == ["test"]


def test_images_that_look_alike_in_two_splits_are_warned_of_and_kept(folder: Path, lists: Lists) -> None:
    write_image(folder, "b", encode(picture(4), quality=40), None)  # t is picture 4, of better quality
    result = preprocess(lists, [], params())
    assert [sample.id for sample in result.splits["train"].samples] == ["a", "b", "c"]
    assert all_problems(result) == []
    (warning,) = result.warnings
    names = "own/JPEGImages/b.jpg ~ own/JPEGImages/t.jpg"
    assert warning == f"1 image(s) of train look like images of test: {names}"
    assert summarise(result, FOUND)["warnings"][0] == warning


def test_the_same_picture_with_other_boxes_is_warned_of_and_with_the_same_boxes_not(
    folder: Path, lists: Lists
) -> None:
    content = (folder / "JPEGImages/a.jpg").read_bytes()
    write_image(folder, "b", content, None)
    assert preprocess(lists, [], params()).warnings == ()
    write_image(folder, "b", None, annotation_xml(object_xml("dog", (5, 5, 20, 21))))
    names = "own/JPEGImages/a.jpg = own/JPEGImages/b.jpg"
    expected = f"1 image(s) of train have the pixels of another, but other boxes: {names}"
    assert preprocess(lists, [], params()).warnings == (expected,)


def test_classes_are_those_of_train_sorted(folder: Path, lists: Lists) -> None:
    write_image(folder, "b", None, annotation_xml(object_xml("cat", (1, 1, 9, 9))))
    write_image(folder, "t", None, annotation_xml(object_xml("bird", (1, 1, 9, 9))))
    result = preprocess(lists, [], params())
    assert result.class_names == ["cat", "dog"]
    assert [sample.labels for sample in result.splits["train"].samples] == [[2], [1], [2]]
    assert [problem.reason for _, problem in all_problems(result)] == ["unknown class 'bird'"]


def test_classes_of_held_out_images_count_as_those_of_train(folder: Path) -> None:
    lists = write_folder(folder, {"train": ["a", "b"], "test": ["t"]})
    write_image(folder, "a", None, annotation_xml(object_xml("cat", (1, 1, 9, 9))))
    write_image(folder, "t", None, annotation_xml(object_xml("bird", (1, 1, 9, 9))))
    result = preprocess(lists, [], params(val_fraction=0.5))
    assert [len(result.splits[name].samples) for name in ("train", "val", "test")] == [1, 1, 1]
    assert result.notes == ("1 images were held out as val",)
    assert result.class_names == ["cat", "dog"]


def test_given_classes_keep_their_order(lists: Lists) -> None:
    result = preprocess(lists, ["zebra", "dog"], params())
    assert result.class_names == ["zebra", "dog"]
    assert result.splits["train"].samples[0].labels == [2]


def test_classes_are_those_of_params_for_an_own_folder_else_those_of_the_source(
    caplog: pytest.LogCaptureFixture,
) -> None:
    named, unnamed = Catalogue({}, {}, Found(0, 0), ("x", "y")), Catalogue({}, {}, Found(0, 0))
    assert declared_classes(data_params("coco_json", classes=["b", "a"]), named) == ["b", "a"]
    assert declared_classes(data_params("coco_json"), named) == ["x", "y"]
    assert declared_classes(data_params("voc_dir"), unnamed) == []
    assert caplog.messages == []
    assert declared_classes(data_params("coco", classes=["b"]), named) == ["x", "y"]
    assert "data.classes: not used: coco" in caplog.text


def test_a_crowd_of_coco_reaches_the_tensor_file_with_its_problems(tmp_path: Path) -> None:
    write_images(tmp_path / "raw/train", "a.jpg")
    boxes = [[1, 2, 8, 10], [0, 0, 40, 31], [5, 5, 0, 9]]
    entries = [annotation(number, 1, bbox=box, iscrowd=number % 2) for number, box in enumerate(boxes)]
    write_json(tmp_path / "raw/annotations/instances_train.json", [image(1, "a.jpg")], entries)
    listing = make_splits(read_coco(read_folder(tmp_path / "raw")), data_params("coco_json"), params())
    result = preprocessing.preprocess(listing, ["dog"], params(), tmp_path)
    write_tensor_file(tmp_path / "train.safetensors", result.splits["train"].samples, result.class_names)
    file = TensorFile(tmp_path / "train.safetensors")
    assert file.boxes.tolist() == [[1, 2, 9, 12], [0, 0, 40, 30]]
    assert file.crowd.tolist() == file.objects(0).ignored.tolist() == [False, True]
    assert bytes(file.encoded(0).numpy()) == (tmp_path / "raw/train/a.jpg").read_bytes()
    name = "annotations/instances_train.json (a.jpg)"
    assert all_problems(result) == [
        (
            "train",
            Problem(
                name, (0, 0, 40, 31), "reaches over the image's edge by a pixel or less; clipped", "mended"
            ),
        ),
        ("train", Problem(name, (5, 5, 0, 9), "zero size", "dropped", num_objects=1)),
    ]
    assert summarise(result, FOUND)["splits"]["train"]["num_crowd"] == 1


def test_images_wait_in_a_file_that_leaves_no_trace(folder: Path, lists: Lists) -> None:
    before = sorted(folder.parent.rglob("*"))
    result = preprocess(lists, [], params())
    assert isinstance(result.splits["train"].samples[0].encoded, memoryview)
    assert sorted(folder.parent.rglob("*")) == before


def test_the_number_of_workers_changes_nothing(folder: Path) -> None:
    stems = [f"{number:03}" for number in range(50)]
    lists = write_folder(folder, {"train": stems[:40], "test": stems[40:]})
    write_image(folder, "007", b"", None)
    write_image(folder, "010", None, annotation_xml(DOG, object_xml("dog", (20, 20, 10, 99))))
    write_image(folder, "012", (folder / "JPEGImages/045.jpg").read_bytes(), None)
    one, two, all_cores = (
        preprocess(lists, [], preprocess_params(val_fraction=0.2, workers=n)) for n in (1, 2, 0)
    )
    assert one == two == all_cores
    assert len(all_problems(one)) == 4


def test_strict_refuses_any_problem(folder: Path, lists: Lists) -> None:
    write_image(
        folder, "b", None, annotation_xml(object_xml("dog", (9, 9, 9, 9)), object_xml("dog", (0, 1, 9, 9)))
    )
    result = preprocess(lists, [], params())
    raise_if_unusable(result, strict=False, report="reports/problems.json")
    with pytest.raises(UserError) as caught:
        raise_if_unusable(result, strict=True, report="reports/problems.json")
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "2 problem(s)",
        "reports/problems.json",
        "own/Annotations/b.xml: zero size",
        "preprocess.strict",
    ):
        assert part in message


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_which_nothing_is_left_is_refused(folder: Path, lists: Lists, split: str) -> None:
    for stem in {"train": "abc", "test": "tu"}[split]:
        write_image(folder, stem, b"", None)
    with pytest.raises(UserError, match=f"no image is left in {split}; .*own/JPEGImages/.*the file is empty"):
        raise_if_unusable(preprocess(lists, ["dog"], params()), strict=False, report="problems.json")


def test_an_empty_train_list_is_not_told_as_a_fault_of_test(folder: Path) -> None:
    result = preprocess(write_folder(folder, {"train": [], "test": ["t"]}), [], params())
    with pytest.raises(UserError, match="no image is left in train; its list is empty"):
        raise_if_unusable(result, strict=False, report="problems.json")


def test_nothing_to_test_on_is_refused_with_the_way_out(lists: Lists) -> None:
    result = preprocess({"train": lists["train"]}, [], params(val_fraction=0.0))
    with pytest.raises(UserError, match=r"no image is left in test; .*preprocess\.val_fraction"):
        raise_if_unusable(result, strict=False, report="problems.json")


def test_no_object_at_all_is_refused(folder: Path, lists: Lists) -> None:
    for stem in "abc":
        write_image(folder, stem, None, annotation_xml())
    (folder / "Annotations/t.xml").write_bytes(annotation_xml())
    (folder / "Annotations/u.xml").write_bytes(annotation_xml())
    (folder / "Annotations/v.xml").write_bytes(annotation_xml())
    with pytest.raises(UserError, match="no object is left in train for the classes"):
        raise_if_unusable(preprocess(lists, [], params()), strict=False, report="problems.json")


def test_nothing_but_crowds_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "raw/train", "a.jpg")
    entries = [annotation(number, 1, bbox=[1, 2, 8 + number, 10], iscrowd=1) for number in range(3)]
    write_json(tmp_path / "raw/annotations/instances_train.json", [image(1, "a.jpg")], entries)
    write_images(tmp_path / "raw/test", "t.jpg")
    write_json(tmp_path / "raw/annotations/instances_test.json", [image(1, "t.jpg")], [annotation(1, 1)])
    listing = make_splits(
        read_coco(read_folder(tmp_path / "raw")), data_params("coco_json"), params(val_fraction=0.0)
    )
    result = preprocessing.preprocess(listing, ["dog"], params(), tmp_path)
    with pytest.raises(UserError, match=r"all 3 objects of train are crowds \(iscrowd: 1\).*iscrowd: 0"):
        raise_if_unusable(result, strict=False, report="problems.json")
    assert result.warnings == ()


def test_nothing_but_difficult_objects_is_warned_of(folder: Path, lists: Lists) -> None:
    difficult = object_xml("dog", (5, 5, 20, 20), difficult=True)
    for stem in "abc":
        write_image(folder, stem, None, annotation_xml(difficult))
    result = preprocess(lists, [], params())
    raise_if_unusable(result, strict=False, report="problems.json")
    (warning,) = result.warnings
    assert warning.startswith("all objects of train are difficult")
    assert "train.train_on_difficult: true" in warning
    write_image(folder, "a", None, annotation_xml(difficult, object_xml("dog", (1, 1, 9, 9))))
    assert preprocess(lists, [], params()).warnings == ()


def test_summary(folder: Path, lists: Lists) -> None:
    write_image(
        folder,
        "a",
        encode(picture(width=80, height=80).convert("L")),
        annotation_xml(
            object_xml("dog", (1, 1, 80, 80)),
            object_xml("dog", (1, 1, 20, 20), difficult=True),
            width=80,
            height=80,
        ),
    )
    write_image(folder, "b", encode(picture(1).convert("L")), annotation_xml())
    write_image(
        folder, "c", None, annotation_xml(object_xml("dog", (1, 1, 0, 2)), object_xml("cat", (1, 1, 10, 30)))
    )
    summary = summarise(preprocess(lists, ["bird", "cat", "dog"], params(max_side=40)), FOUND)
    train = summary["splits"]["train"]
    assert train.pop("digest")
    sizes = train.pop("relative_box_size")
    assert train == {
        "num_images": 3,
        "num_images_without_objects": 1,
        "num_objects": 4,
        "num_difficult": 1,
        "num_crowd": 0,
        "num_objects_by_class": {"bird": 0, "cat": 1, "dog": 3},
        "num_shrunk": 1,
        "num_reencoded": 2,
        "num_problems": 2,
    }
    # Of the image's side: 1 and 20/80; sqrt(300/1200); and the swapped box, clipped to 1x2 pixels.
    assert sizes["max"] == 1.0
    assert sizes["min"] == pytest.approx((2 / 1200) ** 0.5, abs=1e-4)
    assert sizes["p50"] == pytest.approx((0.25 + 0.5) / 2)
    assert summary["classes_without_training_object"] == ["bird"]
    missing, *too_few = summary["warnings"]
    assert missing == "no object in train, or only difficult and crowd ones: bird"
    assert [warning.split(":")[0] for warning in too_few] == ["val has 1 image", "test has 2 images"]


def test_a_class_of_which_all_objects_are_difficult_is_warned_of(folder: Path, lists: Lists) -> None:
    write_image(folder, "a", None, annotation_xml(object_xml("cat", (1, 1, 9, 9), difficult=True)))
    assert summarise(preprocess(lists, [], params()), FOUND)["classes_without_training_object"] == ["cat"]


def test_a_split_without_objects_or_images_can_be_summarised(lists: Lists) -> None:
    del lists["val"]
    summary = summarise(preprocess(lists, [], params()), FOUND)
    assert summary["splits"]["val"]["num_images"] == 0
    assert summary["splits"]["val"]["relative_box_size"] is None


def test_what_is_held_out_is_noted(lists: Lists) -> None:
    del lists["val"]
    result = preprocess(lists, [], params(val_fraction=0.4))
    assert summarise(result, FOUND)["notes"] == ["1 images were held out as val"]


def test_the_digest_changes_with_every_part_of_a_split(folder: Path, lists: Lists) -> None:
    def digest() -> str:
        return str(summarise(preprocess(lists, ["dog", "cat"], params()), FOUND)["splits"]["train"]["digest"])

    digests = [digest(), digest()]
    assert digests[0] == digests[1]
    for objects in (
        object_xml("dog", (5, 5, 20, 21)),
        object_xml("cat", (5, 5, 20, 20)),
        object_xml("dog", (5, 5, 20, 20), difficult=True),
    ):
        write_image(folder, "b", None, annotation_xml(objects))
        digests.append(digest())
    write_image(folder, "b", encode(picture(99)), annotation_xml(DOG))
    digests.append(digest())
    write_lists(folder, {"train": ["b", "a", "c"]})
    digests.append(digest())
    assert len(set(digests)) == len(digests) - 1


def test_the_list_of_problems_counts_what_was_done(folder: Path, lists: Lists) -> None:
    write_image(folder, "a", b"", None)
    write_image(folder, "t", None, annotation_xml(object_xml("dog", (0, 1, 9, 9))))
    assert list_problems(all_problems(preprocess(lists, [], params()))) == {
        "num_mended": 1,
        "num_dropped": 1,
        "num_unused": 0,
        "problems": [
            {
                "split": "train",
                "file": "own/JPEGImages/a.jpg",
                "box": None,
                "reason": "the file is empty",
                "action": "dropped",
                "num_images": 1,
                "num_objects": 1,
            },
            {
                "split": "test",
                "file": "own/Annotations/t.xml",
                "box": [0, 1, 9, 9],
                "reason": "reaches over the image's edge by a pixel or less; clipped",
                "action": "mended",
                "num_images": 0,
                "num_objects": 0,
            },
        ],
    }


def test_pieces_come_back_from_their_places_after_the_spool_is_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "folder")
    pieces = [b"first", b"", b"second" * 10_000]
    places = [spool.add(piece) for piece in pieces]
    view = spool.view()
    del spool
    assert [bytes(view[place]) for place in places] == pieces
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_spool_of_nothing_comes_back_as_nothing(tmp_path: Path) -> None:
    assert bytes(Spool(tmp_path).view()) == b""
