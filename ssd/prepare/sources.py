"""The reader of each `data.source` and, for sources in VOC layout, its lists and class names.

`ssd.source.download` stores every source in `<raw>/<source>/`: a public data set in its own layout, a user's
folder as it is.
"""

from pathlib import Path

from ssd.errors import UserError
from ssd.params import DataParams, Source
from ssd.prepare.annotations import Catalogue
from ssd.prepare.readers.coco import read_coco
from ssd.prepare.readers.folder_files import read_folder
from ssd.prepare.readers.penn_fudan import read_penn_fudan
from ssd.prepare.readers.recognise import recognise
from ssd.prepare.readers.voc import VocList, read_voc
from ssd.prepare.readers.voc_folder import read_voc_folder
from ssd.prepare.readers.yolo_folder import read_yolo_folder

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


# source -> split -> (set, list) pairs. The labels of VOC2012's test set were never published, so it has none
# here. Papers train "07+12" on both trainval lists and test on VOC2007/test.
LISTS: dict[Source, dict[str, list[tuple[str, str]]]] = {
    "shapes": {
        "train": [("shapes", "train")],
        "val": [("shapes", "val")],
        "test": [("shapes", "test")],
    },
    "voc2007": {
        "train": [("VOC2007", "train")],
        "val": [("VOC2007", "val")],
        "test": [("VOC2007", "test")],
    },
    "voc2012": {
        "train": [("VOC2012", "train")],
        "val": [("VOC2012", "val")],
    },
    "voc0712": {
        "train": [("VOC2007", "trainval"), ("VOC2012", "trainval")],
        "test": [("VOC2007", "test")],
    },
}


def read_source(data: DataParams, raw_folder: Path) -> Catalogue:
    """Read the lists and annotations of the downloaded `data.source`; no image is decoded.

    COCO's own test split has no public annotations: train2017 is train, val2017 the only evaluation split.

    Raises:
        UserError: a list, folder or annotation file is missing or invalid.
    """
    folder = raw_folder / data.source
    match data.source:
        case "coco":
            return read_coco(read_folder(folder))
        case "penn_fudan":
            return read_penn_fudan(folder)
        case "folder" | "voc_dir" | "coco_json" | "yolo_dir":
            return read_own(data, folder)
        case _:
            names = () if data.source == "shapes" else VOC_CLASSES
            return read_voc(voc_lists(data.source, raw_folder), names)


def read_own(data: DataParams, folder: Path) -> Catalogue:
    """Read a user's folder in the format that `data.source` names or, if that is "folder", that it is in.

    Raises:
        UserError: it is in none of the formats, in several, or invalid.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", path=folder)
    files = read_folder(folder)
    match recognise(files, data.source):
        case "voc_dir":
            return read_voc_folder(files)
        case "coco_json":
            return read_coco(files)
        case _:
            return read_yolo_folder(files, data.classes)


def voc_lists(source: Source, raw_folder: Path) -> dict[str, list[VocList]]:
    """The lists that make up "train", "val" and "test" of a public source in VOC layout.

    If "val" or "test" is absent, the source has no such list: a fraction of the images is to be held out.
    """
    devkit = raw_folder / source / "VOCdevkit"
    return {
        split: [VocList(devkit / name, item) for name, item in pairs]
        for split, pairs in LISTS[source].items()
    }
