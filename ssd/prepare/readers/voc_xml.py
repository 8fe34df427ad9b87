"""Parses the XML annotations of Pascal VOC, as labelling tools write them.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, and the documentation of the
development kit.
"""

import math
import re
from pathlib import Path
from xml.etree.ElementTree import Element  # the type; defusedxml does the parsing

from defusedxml.ElementTree import ParseError, fromstring

from ssd.prepare.annotations import AnnotatedObject, Annotation, Box

_UTF8_MARK = b"\xef\xbb\xbf"
_DECLARATION = re.compile(rb"""<\?xml[^>]*?encoding=["']([A-Za-z0-9._-]+)["'][^>]*\?>""")


class AnnotationError(ValueError):
    """An annotation that cannot be read at all; its message says why."""


def parse_annotation(source: bytes | Path) -> Annotation:
    """Parse an annotation, given as XML content or as its path.

    `part` elements (head, hand and foot in the person layout task) belong to their object and are not
    objects themselves. size, filename and difficult are optional; truncated and pose are not read.

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
    size, filename = _parse_size(root), _text(root, "filename")
    return Annotation(size, tuple(objects), tuple(flaws), filename=filename)


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
    # An XML declaration must come first; some tools write an empty line before it.
    content = content.removeprefix(_UTF8_MARK).lstrip()
    try:
        return fromstring(_as_utf8(content))
    except ParseError as error:
        raise AnnotationError(f"not well-formed XML ({error})") from None
    except (ValueError, LookupError) as error:  # also what defusedxml raises for entities
        raise AnnotationError(f"not readable as XML ({str(error) or type(error).__name__})") from None


def _as_utf8(content: bytes) -> bytes:
    """XML without its declaration, if that names an encoding such as GB2312, which expat does not know."""
    declared = _DECLARATION.match(content)
    if not declared or declared[1].lower() in (b"utf-8", b"utf-16"):
        return content
    return content[declared.end() :].decode(declared[1].decode("ascii")).encode()


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
