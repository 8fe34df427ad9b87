"""Reads a folder in YOLO layout: one text file per image, one object per line.

images/{train,val,test}/NAME.jpg    train is required; a missing val or test is held out
labels/{train,val,test}/NAME.txt    lines `class cx cy w h`, cxcywh normalised to [0, 1]; no file: no objects
data.yaml (names) or classes.txt    the class names, numbered from 0; or data.classes
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ssd.errors import UserError
from ssd.layouts import IMAGE_SUFFIXES, SPLITS
from ssd.prepare.annotations import (
    AnnotatedObject,
    Annotation,
    Box,
    Catalogue,
    ImageRef,
    Problem,
)
from ssd.prepare.images import FORMATS

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def read_yolo(folder: Path, class_names: Sequence[str]) -> Catalogue:
    """Read the images and labels of `folder`. `class_names` are used if the folder has no names itself.

    Raises:
        UserError: there are no class names, or they cannot be read.
    """
    names = read_names(folder) or tuple(class_names)
    if not names:
        raise UserError(
            f"{folder}: holds neither data.yaml with names nor classes.txt; "
            "add one of them, or set data.classes"
        )
    images: dict[str, list[ImageRef]] = {}
    problems: dict[str, list[Problem]] = {}
    for split in (split for split in SPLITS if (folder / "images" / split).is_dir()):
        found = [_read_image(folder, path, names) for path in _image_paths(folder / "images" / split)]
        images[split] = [ref for ref in found if isinstance(ref, ImageRef)]
        problems[split] = [problem for problem in found if isinstance(problem, Problem)]
    return Catalogue(images, problems, names)


def read_names(folder: Path) -> tuple[str, ...]:
    """The class names of data.yaml (a list, or a mapping number: name), else of classes.txt, else ()."""
    path = folder / "data.yaml"
    try:
        if not path.is_file():
            path = folder / "classes.txt"
            lines = path.read_text("utf-8-sig").splitlines() if path.is_file() else []
            return tuple(line.strip() for line in lines if line.strip())
        # YAML 1.2, in which yes, no and on are strings and so valid class names.
        content = YAML(typ="safe", pure=True).load(path.read_text("utf-8-sig"))
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable ({' '.join(str(error).split())})") from None
    names: Any = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    plain = isinstance(names, list) and all(isinstance(name, str | int | float) for name in names)
    if not plain or not 0 < len(names) == len({str(name) for name in names}):
        raise UserError(f"{path}: names must be unique, in a list or numbered from 0; mend it")
    return tuple(str(name) for name in names)


def _image_paths(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("[!.]*")) if path.suffix.lower() in IMAGE_SUFFIXES]


def _read_image(folder: Path, path: Path, names: Sequence[str]) -> ImageRef | Problem:
    image_file = path.relative_to(folder).as_posix()
    labels = folder / "labels" / path.parent.name / f"{path.stem}.txt"
    label_file = labels.relative_to(folder).as_posix()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked when decoded
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
    except _UNREADABLE as error:
        return Problem(image_file, None, f"does not decode ({error})", "dropped")
    try:
        lines = labels.read_text("utf-8-sig").splitlines() if labels.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        return Problem(label_file, None, f"not readable ({error})", "dropped")
    objects, flaws = [], []
    for number, line in enumerate(lines, start=1):
        found = _object(line.split(), names, width, height) if line.strip() else None
        if isinstance(found, str):
            flaws.append(f"line {number}: {found}")
        elif found:
            objects.append(found)
    return ImageRef(image_file, path, image_file, label_file, Annotation(None, tuple(objects), tuple(flaws)))


def _object(words: Sequence[str], names: Sequence[str], width: int, height: int) -> AnnotatedObject | str:
    """An object, or the reason why its line cannot be read. width, height: of the image in pixels."""
    if len(words) != 5:
        return f"has {len(words)} columns, not class cx cy w h"
    if not words[0].isdecimal() or int(words[0]) >= len(names):
        return f"class {words[0]} is none of 0 to {len(names) - 1}"
    try:
        cx, cy, w, h = (float(word) for word in words[1:])
    except ValueError:
        return f"{' '.join(words[1:])}: not four numbers"
    if not all(math.isfinite(value) for value in (cx, cy, w, h)):
        return f"{' '.join(words[1:])}: not four finite numbers"
    corners = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
    # Six decimals leave a rounding error below 0.01 pixels, which must not count as outside the image.
    x1, y1, x2, y2 = (round(value, 2) for value in corners)
    box: Box = x1, y1, x2, y2
    return AnnotatedObject(names[int(words[0])], (cx, cy, w, h), box)
