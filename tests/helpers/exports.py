"""Writes one small data set as each labelling tool exports it: ten images with known objects."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voc_folder import Corners, encode, picture

CLASSES = ("cat", "dog")
STEMS = tuple(f"img{number:02d}" for number in range(10))
SPLIT_STEMS = {"train": STEMS[:6], "val": STEMS[6:8], "test": STEMS[8:]}
SIZES = {stem: (48 + number, 30 + 2 * number) for number, stem in enumerate(STEMS)}
"""(width, height) in pixels, all different."""

# xyxy in pixels, half-open, by image; the last image has none.
TRUTH: dict[str, list[tuple[str, Corners]]] = {
    stem: [
        (CLASSES[(number + place) % 2], (2.0 + number, 3.0 + place, 12.0 + 2 * number, 20.0 + place))
        for place in range(1 + number % 3)
    ]
    for number, stem in enumerate(STEMS[:-1])
} | {STEMS[-1]: []}
NUM_OBJECTS = sum(map(len, TRUTH.values()))

Write = Callable[[Path], None]


@dataclass(frozen=True)
class Export:
    """An export: how it is written, and how many images of it are in each split of its own."""

    write: Write
    splits: dict[str, int]
    classes: list[str] = field(default_factory=list)


def images(folder: Path, stems: Sequence[str] = STEMS, suffix: str = ".jpg", format: str = "JPEG") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        width, height = SIZES[stem]
        content = encode(picture(STEMS.index(stem), width, height), format)
        (folder / f"{stem}{suffix}").write_bytes(content)


def text(path: Path, *lines: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))


# ---- Pascal VOC XML


def xml(stem: str, filename: str = "", extra: str = "", head: str = "") -> str:
    width, height = SIZES[stem]
    objects = "".join(
        f"<object><name>{name}</name>{extra}<bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin>"
        f"<xmax>{x2:g}</xmax><ymax>{y2:g}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in TRUTH[stem]
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    name = filename or f"{stem}.jpg"
    return f"{head}<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def xmls(folder: Path, stems: Sequence[str] = STEMS, **options: str) -> None:
    for stem in stems:
        text(folder / f"{stem}.xml", xml(stem, **options))


def voc(folder: Path, **lists: Sequence[str]) -> None:
    images(folder / "JPEGImages")
    xmls(folder / "Annotations")
    for name, lines in lists.items():
        text(folder / f"ImageSets/Main/{name}.txt", *lines)


def vott(folder: Path) -> None:
    voc(folder)
    for name in CLASSES:
        for split, stems in (("train", STEMS[:8]), ("val", STEMS[8:])):
            lines = [f"{stem}.jpg {1 if name in dict(TRUTH[stem]) else -1}" for stem in stems]
            text(folder / f"ImageSets/Main/{name}_{split}.txt", *lines)
    text(folder / "pascal_label_map.pbtxt", "item { id: 1 }")


def labelimg(folder: Path) -> None:
    images(folder)
    xmls(folder, extra="<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>")
    text(folder / "classes.txt", *CLASSES)


def labelimg_two_folders(folder: Path) -> None:
    images(folder / "photos")
    xmls(folder / "xml")


def roboflow_voc(folder: Path) -> None:
    for name, stems in zip(("train", "valid", "test"), SPLIT_STEMS.values(), strict=True):
        images(folder / name, stems)
        xmls(folder / name, stems)
    text(folder / "README.roboflow.txt", "exported on a day")


def label_studio_voc(folder: Path) -> None:
    images(folder / "images")
    xmls(folder / "Annotations")


def voc_in_subfolders(folder: Path) -> None:
    images(folder / "JPEGImages/cam1")
    xmls(folder / "Annotations/cam1")
    text(folder / "ImageSets/Main/default.txt", *(f"cam1/{stem}" for stem in STEMS))


def voc_of_suffix(suffix: str, format: str) -> Write:
    def write(folder: Path) -> None:
        images(folder, suffix=suffix, format=format)
        for stem in STEMS:
            text(folder / f"{stem}.xml", xml(stem, filename=f"{stem}{suffix}"))

    return write


def voc_in_gb2312(folder: Path) -> None:
    images(folder)
    for stem in STEMS:
        head = '<?xml version="1.0" encoding="gb2312"?>'
        text(folder / f"{stem}.xml", xml(stem, extra="<note>标注</note>", head=head), encoding="gb2312")


def voc_in_utf16(folder: Path) -> None:
    images(folder)
    for stem in STEMS:
        text(
            folder / f"{stem}.xml",
            xml(stem, head='<?xml version="1.0" encoding="utf-16"?>'),
            encoding="utf-16",
        )


def voc_test_unannotated(folder: Path) -> None:
    voc(folder, train=STEMS[:6], val=STEMS[6:8], test=STEMS[8:])
    for stem in STEMS[8:]:
        (folder / f"Annotations/{stem}.xml").unlink()


# ---- YOLO


def line(stem: str, number: int, label: str = "") -> str:
    (name, (x1, y1, x2, y2)), (width, height) = TRUTH[stem][number], SIZES[stem]
    values = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
    return " ".join([label or str(CLASSES.index(name)), *(f"{value:.6f}" for value in values)])


def polygon(stem: str, number: int) -> str:
    (name, (x1, y1, x2, y2)), (width, height) = TRUTH[stem][number], SIZES[stem]
    points = [(x1, y1), (x2, (y1 + y2) / 2), ((x1 + x2) / 2, y2)]
    values = [f"{x / width:.6f} {y / height:.6f}" for x, y in points]
    return " ".join([str(CLASSES.index(name)), *values])


def txts(folder: Path, stems: Sequence[str] = STEMS, make: Callable[[str, int], str] = line) -> None:
    for stem in stems:
        text(folder / f"{stem}.txt", *(make(stem, number) for number in range(len(TRUTH[stem]))))


def yolo(folder: Path, names: Sequence[str] = ("train", "val", "test"), make: Any = line) -> None:
    for name, stems in zip(names, SPLIT_STEMS.values(), strict=True):
        images(folder / "images" / name, stems)
        txts(folder / "labels" / name, stems, make)


def yolo_with(*yaml: str, names: Sequence[str] = ("train", "val", "test"), make: Any = line) -> Write:
    def write(folder: Path) -> None:
        yolo(folder, names, make)
        text(folder / "data.yaml", *yaml)

    return write


def roboflow_yolo(folder: Path) -> None:
    for name, stems in zip(("train", "valid", "test"), SPLIT_STEMS.values(), strict=True):
        images(folder / name / "images", stems)
        txts(folder / name / "labels", stems)
    splits = [
        f"{key}: ../{name}/images" for key, name in (("train", "train"), ("val", "valid"), ("test", "test"))
    ]
    text(folder / "data.yaml", *splits, "", "nc: 2", "names: ['cat', 'dog']", "roboflow:", "  version: 1")
    text(folder / "README.dataset.txt", "my set")


def roboflow_darknet(folder: Path) -> None:
    for name, stems in zip(("train", "valid", "test"), SPLIT_STEMS.values(), strict=True):
        images(folder / name, stems)
        txts(folder / name, stems)
        text(folder / name / "_darknet.labels", *CLASSES)


def label_studio_yolo(folder: Path) -> None:
    images(folder / "images")
    txts(folder / "labels")
    text(folder / "classes.txt", *CLASSES)
    text(folder / "notes.json", json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {}}))


def coco128(folder: Path) -> None:
    images(folder / "images/train2017")
    txts(folder / "labels/train2017")
    text(
        folder / "coco128.yaml",
        "path: ../datasets/coco128  # dataset root",
        "train: images/train2017",
        "val: images/train2017",
        "test:",
        "names:",
        *(f"  {number}: {name}" for number, name in enumerate(CLASSES)),
    )


def cvat_yolo(folder: Path) -> None:
    images(folder / "obj_train_data")
    txts(folder / "obj_train_data")
    text(
        folder / "obj.data",
        "classes = 2",
        "train = data/train.txt",
        "names = data/obj.names",
        "backup = backup/",
    )
    text(folder / "obj.names", *CLASSES)
    text(folder / "train.txt", *(f"data/obj_train_data/{stem}.jpg" for stem in STEMS))


def cvat_yolo_subsets(folder: Path) -> None:
    for name, stems in zip(("train", "valid"), (STEMS[:8], STEMS[8:]), strict=True):
        images(folder / f"obj_{name}_data", stems)
        txts(folder / f"obj_{name}_data", stems)
        text(folder / f"{name}.txt", *(f"data/obj_{name}_data/{stem}.jpg" for stem in stems))
    text(folder / "obj.names", *CLASSES)


def cvat_ultralytics(folder: Path) -> None:
    yolo(folder)
    for split, stems in SPLIT_STEMS.items():
        text(folder / f"{split}.txt", *(f"data/images/{split}/{stem}.jpg" for stem in stems))
    text(folder / "data.yaml", "path: ./", *(f"{s}: {s}.txt" for s in SPLIT_STEMS), "names: {0: cat, 1: dog}")


def autosplit(folder: Path) -> None:
    images(folder / "images")
    txts(folder / "labels")
    for split, stems in SPLIT_STEMS.items():
        text(folder / f"autosplit_{split}.txt", *(f"./images/{stem}.jpg" for stem in stems))
    text(folder / "classes.txt", *CLASSES)


def yolo_below_path(folder: Path) -> None:
    yolo(folder / "set")
    text(
        folder / "data.yaml",
        "path: set",
        *(f"{split}: images/{split}" for split in SPLIT_STEMS),
        "names: [cat, dog]",
    )


def beside(folder: Path) -> None:
    images(folder)
    txts(folder)
    text(folder / "classes.txt", *CLASSES)


def yolo_by_notepad(folder: Path) -> None:
    """With byte order marks and line ends of Windows."""
    beside(folder)
    for path in folder.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))


def several_folders(folder: Path) -> None:
    images(folder / "images/train", STEMS[:4])
    images(folder / "images/extra", STEMS[4:6])
    images(folder / "images/val", STEMS[6:])
    for name, stems in (("train", STEMS[:4]), ("extra", STEMS[4:6]), ("val", STEMS[6:])):
        txts(folder / "labels" / name, stems)
    text(folder / "data.yaml", "train: [images/train, images/extra]", "val: images/val", "names: [cat, dog]")


def val_list(folder: Path) -> None:
    images(folder / "images/train", STEMS[:8])
    txts(folder / "labels/train", STEMS[:8])
    images(folder / "images/other", STEMS[8:])
    txts(folder / "labels/other", STEMS[8:])
    text(folder / "val.txt", *(f"./images/other/{stem}.jpg" for stem in STEMS[8:]))
    text(folder / "data.yaml", "train: images/train", "val: val.txt", "names: [cat, dog]")


def valid_txt(folder: Path) -> None:
    images(folder / "images")
    txts(folder / "labels")
    text(folder / "train.txt", *(f"images/{stem}.jpg" for stem in STEMS[:8]))
    text(folder / "valid.txt", *(f"images/{stem}.jpg" for stem in STEMS[8:]))
    text(folder / "classes.txt", *CLASSES)


def yolo_cameras(folder: Path) -> None:
    for camera, stems in (("cam1", STEMS[:4]), ("cam2", STEMS[4:8])):
        images(folder / "images/train" / camera, stems)
        txts(folder / "labels/train" / camera, stems)
    images(folder / "images/val", STEMS[8:])
    txts(folder / "labels/val", STEMS[8:])
    text(folder / "data.yaml", "train: images/train", "val: images/val", "names: [cat, dog]")


def yolo_of_suffix(suffix: str, format: str) -> Write:
    def write(folder: Path) -> None:
        images(folder / "images/train", suffix=suffix, format=format)
        txts(folder / "labels/train")
        text(folder / "classes.txt", *CLASSES)

    return write


def yolo_test_unannotated(folder: Path) -> None:
    yolo_with(*SPLITS_IN_YAML, "names: [cat, dog]")(folder)
    for stem in STEMS[8:]:
        (folder / f"labels/test/{stem}.txt").unlink()


# ---- COCO JSON


def coco_json(
    path: Path,
    stems: Sequence[str] = STEMS,
    *,
    name: Callable[[str], str] = "{}.jpg".format,
    change: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda kind, entry: entry,
    without: Sequence[str] = (),
    categories: Sequence[dict[str, Any]] = (),
) -> None:
    entries = [
        {"id": number, "file_name": name(stem), "width": SIZES[stem][0], "height": SIZES[stem][1]}
        for number, stem in enumerate(stems, start=1)
    ]
    annotations: list[dict[str, Any]] = []
    for number, stem in enumerate(stems, start=1):
        for label, (x1, y1, x2, y2) in TRUTH[stem]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CLASSES.index(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "segmentation": [[x1, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2]],
                    "iscrowd": 0,
                }
            )
    usual = [{"id": number, "name": label} for number, label in enumerate(CLASSES, start=1)]
    content = {
        "images": [change("image", entry) for entry in entries],
        "annotations": [change("annotation", entry) for entry in annotations],
        "categories": [change("category", dict(entry)) for entry in categories or usual],
    }
    text(path, json.dumps({key: value for key, value in content.items() if key not in without}))


def one_coco(
    file: str, image_folder: str, suffix: str = ".jpg", format: str = "JPEG", **options: Any
) -> Write:
    def write(folder: Path) -> None:
        images(folder / image_folder, suffix=suffix, format=format)
        coco_json(folder / file, **options)

    return write


def accented_names(folder: Path) -> None:
    """Names of files as macOS writes them, with a letter and its accent apart; not so in the JSON."""
    images(folder / "images")
    for stem in STEMS:
        (folder / f"images/{stem}.jpg").rename(folder / f"images/e\u0301t\u00e9-{stem}.jpg")
    coco_json(folder / "result.json", name="images/\u00e9t\u00e9-{}.jpg".format)


def roboflow_coco(folder: Path) -> None:
    above = {"id": 0, "name": "pets", "supercategory": "none"}
    below = [{"id": n, "name": name, "supercategory": "pets"} for n, name in enumerate(CLASSES, start=1)]
    for name, stems in zip(("train", "valid", "test"), SPLIT_STEMS.values(), strict=True):
        images(folder / name, stems)
        coco_json(folder / name / "_annotations.coco.json", stems, categories=[above, *below])


def fiftyone_splits(folder: Path) -> None:
    for name, stems in zip(("train", "validation", "test"), SPLIT_STEMS.values(), strict=True):
        images(folder / name / "data", stems)
        coco_json(folder / name / "labels.json", stems)


def cocos_own(folder: Path) -> None:
    for split, stems in SPLIT_STEMS.items():
        images(folder / f"{split}2017", stems)
        coco_json(folder / f"annotations/instances_{split}2017.json", stems)
        coco_json(folder / f"annotations/captions_{split}2017.json", (), without=("categories",))


def cvat_coco_subsets(folder: Path) -> None:
    for name, stems in zip(("Train", "Validation", "Test"), SPLIT_STEMS.values(), strict=True):
        images(folder / "images" / name, stems)
        coco_json(folder / f"annotations/instances_{name}.json", stems, name=f"{name}/{{}}.jpg".format)


def coco_test_unannotated(folder: Path) -> None:
    for split, stems in SPLIT_STEMS.items():
        images(folder / f"{split}2017", stems)
    coco_json(folder / "annotations/instances_train2017.json", SPLIT_STEMS["train"])
    coco_json(folder / "annotations/instances_val2017.json", SPLIT_STEMS["val"])
    coco_json(folder / "annotations/instances_test2017.json", SPLIT_STEMS["test"], without=("annotations",))


def as_strings(kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Whole numbers as strings, in boxes too."""
    changed = {key: str(value) if isinstance(value, int) else value for key, value in entry.items()}
    return changed | ({"bbox": [str(number) for number in entry["bbox"]]} if "bbox" in entry else {})


def as_floats(kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {key: float(value) if key.endswith("id") else value for key, value in entry.items()}


def without_bbox(kind: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "bbox"}


ALL = {"train": 10}
THREE = {"train": 6, "val": 2, "test": 2}
TWO = {"train": 8, "val": 2}
SPLITS_IN_YAML = [f"{split}: images/{split}" for split in SPLIT_STEMS]

EXPORTS = {
    "VOC: CVAT, default.txt": Export(lambda f: voc(f, default=STEMS), ALL),
    "VOC: CVAT, subsets": Export(
        lambda f: voc(f, Train=STEMS[:6], Validation=STEMS[6:8], Test=STEMS[8:]), THREE
    ),
    "VOC: VoTT": Export(vott, TWO),
    "VOC: LabelImg, flat": Export(labelimg, ALL),
    "VOC: LabelImg, XML in another folder": Export(labelimg_two_folders, ALL),
    "VOC: Roboflow": Export(roboflow_voc, THREE),
    "VOC: Label Studio": Export(label_studio_voc, ALL),
    "VOC: lists with suffixes": Export(
        lambda f: voc(f, train=[f"{s}.jpg" for s in STEMS[:8]], val=[f"{s}.jpg" for s in STEMS[8:]]), TWO
    ),
    "VOC: lists with sub-folders": Export(voc_in_subfolders, ALL),
    "VOC: bmp": Export(voc_of_suffix(".bmp", "BMP"), ALL),
    "VOC: webp": Export(voc_of_suffix(".webp", "WEBP"), ALL),
    "VOC: tif": Export(voc_of_suffix(".tif", "TIFF"), ALL),
    "VOC: XML in gb2312": Export(voc_in_gb2312, ALL),
    "VOC: XML in UTF-16": Export(voc_in_utf16, ALL),
    "VOC: its own layout": Export(
        lambda f: voc(f, train=STEMS[:6], val=STEMS[6:8], trainval=STEMS[:8], test=STEMS[8:]), THREE
    ),
    "YOLO: Roboflow": Export(roboflow_yolo, THREE),
    "YOLO: Roboflow, Darknet": Export(roboflow_darknet, THREE),
    "YOLO: Label Studio": Export(label_studio_yolo, ALL),
    "YOLO: coco128": Export(coco128, ALL),
    "YOLO: CVAT 1.1": Export(cvat_yolo, ALL),
    "YOLO: CVAT 1.1, subsets": Export(cvat_yolo_subsets, TWO),
    "YOLO: CVAT, Ultralytics": Export(cvat_ultralytics, THREE),
    "YOLO: autosplit lists": Export(autosplit, THREE),
    "YOLO: path of a sub-folder": Export(yolo_below_path, THREE),
    "YOLO: labels beside the images": Export(beside, ALL),
    "YOLO: byte order marks": Export(yolo_by_notepad, ALL),
    "YOLO: polygons": Export(yolo_with(*SPLITS_IN_YAML, "names: [cat, dog]", make=polygon), THREE),
    "YOLO: confidence": Export(
        yolo_with(*SPLITS_IN_YAML, "names: [cat, dog]", make=lambda s, n: f"{line(s, n)} 0.93"), THREE
    ),
    "YOLO: poses": Export(
        yolo_with(
            *SPLITS_IN_YAML,
            "kpt_shape: [2, 3]",
            "names: [cat, dog]",
            make=lambda s, n: f"{line(s, n)} 0.1 0.2 2 0.3 0.4 2",
        ),
        THREE,
    ),
    "YOLO: class 0.0": Export(
        yolo_with("names: [cat, dog]", make=lambda s, n: line(s, n).replace(" ", ".0 ", 1)), THREE
    ),
    "YOLO: nc without names": Export(yolo_with(*SPLITS_IN_YAML, "nc: 2"), THREE, list(CLASSES)),
    "YOLO: names keyed by strings": Export(yolo_with(*SPLITS_IN_YAML, "names: {'0': cat, '1': dog}"), THREE),
    "YOLO: images/valid": Export(yolo_with("names: [cat, dog]", names=("train", "valid", "test")), THREE),
    "YOLO: images/Val": Export(yolo_with("names: [cat, dog]", names=("Train", "Val", "Test")), THREE),
    "YOLO: valid.txt": Export(valid_txt, TWO),
    "YOLO: a list of folders": Export(several_folders, {"train": 6, "val": 4}),
    "YOLO: val: val.txt": Export(val_list, TWO),
    "YOLO: folders per camera": Export(yolo_cameras, TWO),
    "YOLO: bmp": Export(yolo_of_suffix(".bmp", "BMP"), ALL),
    "YOLO: webp": Export(yolo_of_suffix(".webp", "WEBP"), ALL),
    "YOLO: tif": Export(yolo_of_suffix(".tif", "TIFF"), ALL),
    "COCO: its own layout": Export(cocos_own, THREE),
    "COCO: CVAT": Export(one_coco("annotations/instances_default.json", "images"), ALL),
    "COCO: CVAT, subsets": Export(cvat_coco_subsets, THREE),
    "COCO: Roboflow": Export(roboflow_coco, THREE),
    "COCO: FiftyOne": Export(one_coco("labels.json", "data"), ALL),
    "COCO: FiftyOne, splits": Export(fiftyone_splits, THREE),
    "COCO: Label Studio": Export(one_coco("result.json", "images", name="images/{}.jpg".format), ALL),
    "COCO: Label Studio, Windows": Export(
        one_coco("result.json", "images", name="images\\{}.jpg".format), ALL
    ),
    "COCO: Label Studio 1.16": Export(
        one_coco("result.json", "images", name="../../label-studio/data/media/upload/1/{}.jpg".format), ALL
    ),
    "COCO: absolute paths": Export(
        one_coco("result.json", "images", name="/home/anna/photos/{}.jpg".format), ALL
    ),
    "COCO: tif": Export(
        one_coco("annotations.json", "images", suffix=".tif", format="TIFF", name="{}.tif".format), ALL
    ),
    "COCO: numbers as strings": Export(one_coco("annotations.json", "images", change=as_strings), ALL),
    "COCO: ids as 1.0": Export(one_coco("annotations.json", "images", change=as_floats), ALL),
    "COCO: a polygon and no bbox": Export(one_coco("annotations.json", "images", change=without_bbox), ALL),
}
"""By name; every box of every image is known (TRUTH)."""

UNANNOTATED = {
    "VOC: test.txt without annotations": voc_test_unannotated,
    "YOLO: images/test without label files": yolo_test_unannotated,
    "COCO: a test JSON without annotations": coco_test_unannotated,
}
"""Exports whose test split has images, but no annotations."""
