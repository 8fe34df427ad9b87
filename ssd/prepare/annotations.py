"""The common form of all data set layouts: images, their annotations and problems, by split.

The readers return a `Catalogue`; later code does not depend on the layout of the data set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Box = tuple[float, float, float, float]
Action = Literal["mended", "dropped", "unused"]


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """An object as annotated, not yet validated.

    written: the four numbers of the box as stored in the file, for reports; box: the same box as xyxy in
    pixels, 0-based, half-open, or normalised to [0, 1] (see `Annotation`), not validated (corners may be
    swapped, equal, or outside the image).
    difficult: Pascal VOC's flag; crowd: COCO's iscrowd, a box around several objects.
    """

    name: str
    written: Box
    box: Box
    difficult: bool = False
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """The content of one image's annotation.

    size: (height, width) in pixels as written, None if missing; flaws: one line per object that could not be
    read and so is not among `objects`; normalised: boxes are fractions of the image's width and height, not
    pixels; filename: the image's name as written, "" if missing.
    """

    size: tuple[int, int] | None
    objects: tuple[AnnotatedObject, ...]
    flaws: tuple[str, ...] = ()
    normalised: bool = False
    filename: str = ""

    @property
    def num_objects(self) -> int:
        """Number of objects as written, those that could not be read included."""
        return len(self.objects) + len(self.flaws)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image file and its annotation.

    id: unique over all splits; path: the image file; image_file, annotation_file: their names in `Problem`.
    """

    id: str
    path: Path
    image_file: str
    annotation_file: str
    annotation: Annotation


@dataclass(frozen=True)
class Problem:
    """A fault in the data, and how it was handled.

    file: relative to the folder of the data sets; box: the four numbers as written, None if the fault is not
    about one box; action: "mended", "dropped" (the object, or the image if there is no box) or "unused" (a
    file that no split uses); num_images, num_objects: number of image files and annotated objects lost by it.
    """

    file: str
    box: Box | None
    reason: str
    action: Action
    num_images: int = 0
    num_objects: int = 0


@dataclass(frozen=True)
class Found:
    """What a data set holds, counted before anything is dropped.

    num_images: image files; num_objects: annotated objects in all annotations; layout: what the files were
    taken for, in words, "" for a public data set; made_of: by split, what defines it; unused: images and
    annotations that no split uses; notes: remarks on how they were read.
    """

    num_images: int
    num_objects: int
    layout: str = ""
    made_of: Mapping[str, str] = field(default_factory=dict)
    unused: Sequence[Problem] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """A data set with the splits that its own lists, files or folders define.

    images: by split; "train" always, "val" and "test" only if the data set defines them; problems: found in
    reading, by split; class_names: in label order, () if they must be collected from the annotations.
    """

    images: Mapping[str, Sequence[ImageRef]]
    problems: Mapping[str, Sequence[Problem]]
    found: Found
    class_names: tuple[str, ...] = ()
