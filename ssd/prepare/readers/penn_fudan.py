"""Reads the Penn-Fudan Database for Pedestrian Detection: one box per person in the masks.

Wang, Shi, Song, Shen, "Object Detection Combining Recognition and Segmentation", ACCV 2007. In a mask the
pixels of person n have the value n, the background 0. The data set's own text files contain boxes too; most
training code computes them from the masks, and so does this module.
"""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssd.errors import UserError
from ssd.prepare.annotations import AnnotatedObject, Annotation, Box, Catalogue, Found, ImageRef, Problem

CLASS = "person"


def read_penn_fudan(folder: Path) -> Catalogue:
    """Read `folder`/PennFudanPed/{PNGImages,PedMasks}. It defines no splits: all images are train.

    Raises:
        UserError: the folder of images is missing.
    """
    images = folder / "PennFudanPed/PNGImages"
    if not images.is_dir():
        raise UserError(f"{images}: no such folder", path=images)
    refs, problems = [], []
    for path in sorted(images.glob("[!.]*.png")):
        mask = folder / "PennFudanPed/PedMasks" / f"{path.stem}_mask.png"
        mask_file = mask.relative_to(folder).as_posix()
        annotation = read_mask(mask)
        if isinstance(annotation, str):
            problems.append(Problem(mask_file, None, annotation, "dropped", num_images=1))
        else:
            name = path.relative_to(folder).as_posix()
            refs.append(ImageRef(path.stem, path, name, mask_file, annotation))
    found = Found(len(refs) + len(problems), sum(ref.annotation.num_objects for ref in refs))
    return Catalogue({"train": refs}, {"train": problems}, found, (CLASS,))


def read_mask(path: Path) -> Annotation | str:
    """The persons of a mask in order of their pixel values, or the reason why it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as image:
                if image.mode not in ("L", "P"):  # P (palette): the indices are the values, not the colours
                    return f"a mask has one channel of 8 bits, this is {image.mode}"
                values = np.asarray(image)
    except FileNotFoundError:
        return "there is no such mask"
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        return f"does not decode ({error})"
    height, width = values.shape
    boxes = [extent(values == value) for value in np.unique(values) if value != 0]
    return Annotation((height, width), tuple(AnnotatedObject(CLASS, box, box) for box in boxes))


def extent(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around the true pixels of a bool [H, W] mask: xyxy, pixels, 0-based, half-open."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
