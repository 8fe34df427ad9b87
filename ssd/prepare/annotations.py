"""What every layout of a data set is read into: images, their annotations and problems, by split.

Readers (voc_lists.py, coco.py, penn_fudan.py, yolo.py) make a `Catalogue`; nothing after them knows which
layout the data set had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Box = tuple[float, float, float, float]
Action = Literal["mended", "dropped"]


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """An object as its annotation has it.

    written: the four numbers of the box as they stand in the file, for reports; box: what they mean, xyxy in
    pixels, 0-based, half-open, faults included (corners may be swapped, equal, or outside the image).
    difficult: Pascal's flag; crowd: COCO's iscrowd, a box around several objects.
    """

    name: str
    written: Box
    box: Box
    difficult: bool = False
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """What an annotation says about its image.

    size: (height, width) as written, None where there is none; flaws: one line for each object that could not
    be read, and so is not among `objects`.
    """

    size: tuple[int, int] | None
    objects: tuple[AnnotatedObject, ...]
    flaws: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image file and its annotation.

    id: unique over all splits; path: the image file; image_file, annotation_file: their names in problems.
    """

    id: str
    path: Path
    image_file: str
    annotation_file: str
    annotation: Annotation


@dataclass(frozen=True)
class Problem:
    """Something wrong in the data, and what was done about it.

    file: relative to the folder of the data sets; box: the four numbers as written, None where it is not
    about one box; action: "mended" or "dropped" (the object, or the image where there is no box).
    """

    file: str
    box: Box | None
    reason: str
    action: Action


@dataclass(frozen=True)
class Catalogue:
    """A data set as its own lists, files or folders divide it.

    images: by split; "train" always, "val" and "test" only where the data set has such a list; problems: what
    was wrong in reading them, by split; class_names: in label order, () where the annotations have to tell.
    """

    images: Mapping[str, Sequence[ImageRef]]
    problems: Mapping[str, Sequence[Problem]]
    class_names: tuple[str, ...] = ()
