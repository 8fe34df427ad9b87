"""What each `data.source` is made of: lists of image ids, and VOC's class names.

Every source ends up in the layout of the Pascal VOC development kit (Everingham et al., IJCV 2010):
`<raw>/<source>/VOCdevkit/<set>/{JPEGImages,Annotations,ImageSets/Main}`; `ssd.data.download` brings it there.
"""

from dataclasses import dataclass
from pathlib import Path

from ssd.params import Source

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


# source -> split -> (set, list) pairs. The labels of VOC2012's test set were never published, so its
# test split is its val split. Papers train "07+12" on both trainval lists and test on VOC2007/test.
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
        "test": [("VOC2012", "val")],
    },
    "voc0712": {
        "train": [("VOC2007", "trainval"), ("VOC2012", "trainval")],
        "test": [("VOC2007", "test")],
    },
}


@dataclass(frozen=True)
class VocList:
    """A list of image ids in a folder of VOC layout: `folder`/ImageSets/Main/`name`.txt."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / "ImageSets/Main" / f"{self.name}.txt"


def splits(source: Source, raw_folder: Path) -> dict[str, list[VocList]]:
    """The lists that make up "train", "val" and "test" of a downloaded source; "train" is always there.

    Without "val", the source has none: a share of train is to be held out. Where test images are
    those of val, `splits["test"] == splits["val"]`. Without "test" (voc_dir with nothing but a list to
    train on), the share of train that is held out has to serve as test too.
    """
    devkit = raw_folder / source / "VOCdevkit"
    lists = _own_lists(devkit / "own") if source == "voc_dir" else LISTS[source]
    return {split: [VocList(devkit / name, item) for name, item in pairs] for split, pairs in lists.items()}


def _own_lists(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """The lists of a user's folder. Where trainval is the train split, val is part of it and so not used."""
    names = [name for name in ("train", "val", "test") if VocList(folder, name).path.is_file()]
    lists = {name: [("own", name)] for name in names}
    if "train" not in lists:
        lists.pop("val", None)
        lists["train"] = [("own", "trainval")]
    if "val" in lists:
        lists.setdefault("test", lists["val"])
    return lists
