"""What files of a data set are called: its splits, images, masks and annotations."""

from pathlib import PurePosixPath

SPLITS = ("train", "val", "test")

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Of the formats that preprocess decodes (`ssd.prepare.images.FORMATS`), in upper or lower case; if an image
exists with several, the first of these is used."""

UNREAD_IMAGE_SUFFIXES = (
    ".avif",
    ".cr2",
    ".dcm",
    ".dng",
    ".exr",
    ".heic",
    ".heif",
    ".jp2",
    ".jxl",
    ".nef",
    ".psd",
)
"""Of images that are found, but not decoded: they are reported."""

LABEL_SUFFIXES = (".json", ".txt", ".xml", ".yaml", ".yml", ".data", ".labels", ".names")
"""Of annotations, lists of images, and lists of class names."""

MASK_FOLDERS = ("SegmentationClass", "SegmentationObject", "__MACOSX")
"""Folders of Pascal VOC's masks, whose files are named as the images, and of what macOS adds to archives."""

OWN_SOURCES = ("folder", "voc_dir", "coco_json", "yolo_dir")
"""Values of `data.source` for a folder of the user's own."""


def is_data_file(name: PurePosixPath) -> bool:
    """Whether a file may be an image, an annotation, or a list, by its suffix."""
    return name.suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_IMAGE_SUFFIXES, *LABEL_SUFFIXES)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, by its name."""
    return name.startswith(".")
