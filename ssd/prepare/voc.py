"""Reads the layout of the Pascal VOC development kit: lists of image ids, images, XML annotations.

`<folder>/{JPEGImages,Annotations,ImageSets/Main}`: Everingham et al., "The Pascal Visual Object Classes (VOC)
Challenge", IJCV 2010, and the documentation of the development kit.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element  # the type; defusedxml does the parsing

from defusedxml.ElementTree import ParseError, fromstring

from ssd.errors import UserError
from ssd.layouts import IMAGE_SUFFIXES
from ssd.prepare.annotations import AnnotatedObject, Annotation, Box, Catalogue, ImageRef, Problem

_UTF8_MARK = b"\xef\xbb\xbf"
_FLAGGED_LINE = re.compile(r"(.+?)\s+(?:-1|0|1)")


class AnnotationError(ValueError):
    """An annotation that cannot be read at all; its message says why."""


@dataclass(frozen=True)
class VocList:
    """A list of image ids in a folder of VOC layout: `folder`/ImageSets/Main/`name`.txt."""

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        return self.folder / "ImageSets/Main" / f"{self.name}.txt"


def read_voc(lists: Mapping[str, Sequence[VocList]], class_names: Sequence[str] = ()) -> Catalogue:
    """Read the lists of "train" and optionally "val" and "test", with the annotations of their images.

    An image listed twice in a split is used once. One without an image file or a readable annotation is
    dropped and reported as a problem.

    Raises:
        UserError: a list or a JPEGImages folder is missing.
    """
    labels = folder_labels(item.folder for items in lists.values() for item in items)
    files = {folder: _image_paths(folder) for folder in labels}
    problems: dict[str, list[Problem]] = {split: [] for split in lists}
    images = {split: _read_lists(items, labels, files, problems[split]) for split, items in lists.items()}
    return Catalogue(images, problems, tuple(class_names))


def own_lists(folder: Path) -> dict[str, list[VocList]]:
    """The lists of a user's folder. Where trainval is the train split, it includes val, so val is unused."""
    lists = {name: VocList(folder, name) for name in ("train", "val", "test")}
    found = {name: [item] for name, item in lists.items() if item.path.is_file()}
    if "train" not in found:
        found.pop("val", None)
        found["train"] = [VocList(folder, "trainval")]
    return found


def folder_labels(folders: Iterable[Path]) -> dict[Path, str]:
    """A short name per folder: its last path component, or as many as make the names unique."""
    distinct = set(folders)
    depth = 1
    while len({folder.parts[-depth:] for folder in distinct}) < len(distinct):
        depth += 1
    return {folder: "/".join(folder.parts[-depth:]) for folder in distinct}


def _image_paths(folder: Path) -> dict[str, Path]:
    """Stem -> path of the images in a folder's JPEGImages."""
    images = folder / "JPEGImages"
    if not images.is_dir():
        raise UserError(f"{images}: no such folder", path=images)
    found = [path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    found.sort(key=lambda path: (IMAGE_SUFFIXES.index(path.suffix.lower()), path.name), reverse=True)
    return {path.stem: path for path in found}


def _read_lists(
    items: Sequence[VocList],
    labels: Mapping[Path, str],
    files: Mapping[Path, Mapping[str, Path]],
    problems: list[Problem],
) -> list[ImageRef]:
    """The images of a split's lists; duplicate, missing and invalid entries are appended to `problems`."""
    images: list[ImageRef] = []
    seen: set[str] = set()
    for item in items:
        label = labels[item.folder]
        list_file = f"{label}/ImageSets/Main/{item.name}.txt"
        for stem in read_list(item.path):
            image_id = f"{label}/{stem}" if len(labels) > 1 else stem
            if stem in (".", "..") or "/" in stem or "\\" in stem or "\0" in stem:
                problems.append(Problem(list_file, None, f"{stem!r} is no plain file name", "dropped"))
            elif image_id in seen:
                problems.append(Problem(list_file, None, f"{stem} is listed twice", "dropped"))
            else:
                seen.add(image_id)
                found = _read_image(image_id, item.folder, label, stem, files[item.folder].get(stem))
                problems.append(found) if isinstance(found, Problem) else images.append(found)
    return images


def _read_image(image_id: str, folder: Path, label: str, stem: str, path: Path | None) -> ImageRef | Problem:
    image_file, annotation_file = f"{label}/JPEGImages/{stem}", f"{label}/Annotations/{stem}.xml"
    if path is None:
        return Problem(image_file, None, "there is no .jpg, .jpeg or .png of this name", "dropped")
    try:
        annotation = parse_annotation(folder / "Annotations" / f"{stem}.xml")
    except AnnotationError as error:
        return Problem(annotation_file, None, str(error), "dropped")
    return ImageRef(image_id, path, f"{label}/JPEGImages/{path.name}", annotation_file, annotation)


def read_list(path: str | Path) -> list[str]:
    """Read the image ids of a list in ImageSets/Main, one per line, in order, duplicates included.

    The lists of single classes (cat_train.txt) have a second column of -1, 0 or 1, which is dropped.

    Raises:
        UserError: the list is missing or not UTF-8.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: not found", path=path) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; a list has one image id per line") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    flagged = [_FLAGGED_LINE.fullmatch(line) for line in lines]
    # The column is dropped only if every line has it: an id may itself end in " 1".
    return [match[1] for match in flagged if match] if all(flagged) else lines


def parse_annotation(source: bytes | Path) -> Annotation:
    """Parse an annotation, given as XML content or as its path.

    `part` elements (head, hand and foot in the person layout task) belong to their object and are not
    objects themselves. size and difficult are optional; filename, truncated and pose are not read.

    Raises:
        AnnotationError: it is missing, not well-formed XML, not an annotation, or defines entities.
    """
    root = _parse_xml(_read(source) if isinstance(source, Path) else source)
    if root.tag != "annotation":
        raise AnnotationError(f"the outermost element is <{root.tag}>, not <annotation>")
    objects, flaws = [], []
    for number, element in enumerate(root.findall("object"), start=1):
        try:
            objects.append(_parse_object(element))
        except AnnotationError as error:
            flaws.append(f"object {number} ({_text(element, 'name') or 'without name'}): {error}")
    return Annotation(_parse_size(root), tuple(objects), tuple(flaws))


def half_open(box: Box) -> Box:
    """Convert a Pascal VOC box (1-based, inclusive corners) to xyxy in pixels, 0-based, half-open.

    Swapped corners stay swapped: sorting the result gives the box of the sorted corners. Equal corners stay
    equal: in Pascal VOC such a box is one pixel wide, but annotation tools write it for zero width.
    """
    xmin, ymin, xmax, ymax = box
    x1, x2 = _half_open_side(xmin, xmax)
    y1, y2 = _half_open_side(ymin, ymax)
    return x1, y1, x2, y2


def _half_open_side(first: float, last: float) -> tuple[float, float]:
    if first == last:
        return first - 1, last - 1
    return (first - 1, last) if first < last else (first, last - 1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise AnnotationError("there is no such annotation") from None
    except OSError as error:
        raise AnnotationError(f"not readable ({error.strerror})") from None


def _parse_xml(content: bytes) -> Element:
    try:
        # An XML declaration must come first; some tools write an empty line before it.
        return fromstring(content.removeprefix(_UTF8_MARK).lstrip())
    except ParseError as error:
        raise AnnotationError(f"not well-formed XML ({error})") from None
    except (ValueError, LookupError) as error:  # also what defusedxml raises for entities
        raise AnnotationError(f"not readable as XML ({str(error) or type(error).__name__})") from None


def _parse_object(element: Element) -> AnnotatedObject:
    name = _text(element, "name")
    if not name:
        raise AnnotationError("no name")
    # find() searches direct children only, so the bndbox of a part is not taken for the object's.
    corners = element.find("bndbox")
    if corners is None:
        raise AnnotationError("no bndbox")
    xmin, ymin, xmax, ymax = (_coordinate(corners, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    written = xmin, ymin, xmax, ymax
    return AnnotatedObject(name, written, half_open(written), difficult=_flag(element, "difficult"))


def _coordinate(corners: Element, tag: str) -> float:
    if corners.find(tag) is None:
        raise AnnotationError(f"no {tag}")
    text = _text(corners, tag)
    value = _number(text)
    if value is None:
        raise AnnotationError(f"{tag} is {text!r}, not a finite number")
    return value


def _flag(element: Element, tag: str) -> bool:
    """True for `true` and non-zero numbers; tools that do not set a flag omit it or write "Unspecified"."""
    text = _text(element, tag)
    return text.lower() == "true" or bool(_number(text))


def _parse_size(root: Element) -> tuple[int, int] | None:
    """(height, width) in pixels, or None if missing or not numbers: the image itself has them."""
    height, width = _number(_text(root, "size/height")), _number(_text(root, "size/width"))
    return None if height is None or width is None else (round(height), round(width))


def _number(text: str) -> float | None:
    """`text` as a finite number, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _text(element: Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())
