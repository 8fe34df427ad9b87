"""Reading lists and annotations of the VOC layout, with what tools and people write into them."""

from pathlib import Path

import pytest

from ssd.errors import UserError
from ssd.prepare.annotations import AnnotatedObject, Box
from ssd.prepare.readers.voc import read_list
from ssd.prepare.readers.voc_xml import AnnotationError, half_open, parse_annotation

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"


def voc_object(name: str, written: Box, *, difficult: bool = False) -> AnnotatedObject:
    return AnnotatedObject(name, written, half_open(written), difficult)


def parse_objects(*objects: str) -> tuple[AnnotatedObject, ...]:
    return parse_annotation(f"<annotation>{''.join(objects)}</annotation>".encode()).objects


def flaw_of(element: str) -> str:
    annotation = parse_annotation(f"<annotation>{element}</annotation>".encode())
    assert annotation.objects == ()
    (flaw,) = annotation.flaws
    return flaw


def test_an_annotation_in_the_form_of_the_development_kit() -> None:
    annotation = parse_annotation(
        b"""<annotation>
            <folder>VOC2007</folder>
            <filename>000005.jpg</filename>
            <source><database>The VOC2007 Database</database></source>
            <size><width>500</width><height>375</height><depth>3</depth></size>
            <segmented>0</segmented>
            <object>
                <name>chair</name><pose>Rear</pose><truncated>1</truncated><difficult>0</difficult>
                <bndbox><xmin>263</xmin><ymin>211</ymin><xmax>324</xmax><ymax>339</ymax></bndbox>
            </object>
            <object>
                <name>dog</name><pose>Unspecified</pose><truncated>0</truncated><difficult>1</difficult>
                <bndbox><xmin>5</xmin><ymin>244</ymin><xmax>67</xmax><ymax>374</ymax></bndbox>
            </object>
        </annotation>"""
    )
    assert annotation.size == (375, 500)
    assert annotation.objects == (
        voc_object("chair", (263, 211, 324, 339)),
        voc_object("dog", (5, 244, 67, 374), difficult=True),
    )
    assert annotation.flaws == ()


def test_a_one_based_inclusive_box_becomes_zero_based_and_half_open() -> None:
    # The whole of a 500x375 image, and its first four pixels.
    assert half_open((1, 1, 500, 375)) == (0, 0, 500, 375)
    assert half_open((1, 1, 2, 2)) == (0, 0, 2, 2)


def test_corners_in_the_wrong_order_stay_so_and_equal_ones_stay_equal() -> None:
    assert half_open((20, 15, 10, 5)) == (20, 15, 9, 4)
    assert half_open((10, 5, 10, 15)) == (9, 4, 9, 15)


def test_optional_tags_may_be_missing() -> None:
    annotation = parse_annotation(f"<annotation><object><name>dog</name>{BOX}</object></annotation>".encode())
    assert annotation.size is None
    assert annotation.objects == (voc_object("dog", (1, 2, 30, 40)),)


def test_an_annotation_without_objects_is_one() -> None:
    assert parse_annotation(b"<annotation/>").objects == ()


def test_coordinates_may_be_fractions_and_in_any_order() -> None:
    corners = "<ymax>4e1</ymax><xmax> 30.25\r\n</xmax><ymin>2.5</ymin><xmin>1.0</xmin>"
    (found,) = parse_objects(f"<object><bndbox>{corners}</bndbox><name>dog</name></object>")
    assert found.written == (1.0, 2.5, 30.25, 40.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", True),
        (" 1\r\n", True),
        ("0", False),
        ("", False),
        ("Unspecified", False),
        ("True", True),
        ("0.0", False),
    ],
)
def test_flags(text: str, expected: bool) -> None:
    (found,) = parse_objects(f"<object><name>dog</name><difficult>{text}</difficult>{BOX}</object>")
    assert found.difficult is expected


def test_parts_of_a_person_are_no_objects_and_lend_it_no_box() -> None:
    head = f"<part><name>head</name>{BOX.replace('30', '33')}</part>"
    before, after = parse_objects(
        f"<object><name>person</name>{head}{BOX}</object>", f"<object>{BOX}{head}<name>person</name></object>"
    )
    assert before == after == voc_object("person", (1, 2, 30, 40))
    assert flaw_of(f"<object><name>person</name>{head}</object>") == "object 1 (person): no bndbox"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_byte_order_marks_line_ends_and_encodings(encoding: str) -> None:
    name = {"utf-8-sig": "utf-8"}.get(encoding, encoding)
    declaration = f'<?xml version="1.0" encoding="{name}"?>'
    element = f"<annotation>\r\n<object>\r\n<name>\r\n kötter \r\n</name>{BOX}</object>\r\n</annotation>"
    annotation = parse_annotation(f"{declaration}\r\n{element}\r\n".encode(encoding))
    assert [found.name for found in annotation.objects] == ["kötter"]


def test_an_empty_line_before_the_declaration_is_forgiven() -> None:
    assert parse_annotation(b'\xef\xbb\xbf\r\n <?xml version="1.0"?><annotation/>').objects == ()


@pytest.mark.parametrize(
    ("element", "flaw"),
    [
        (f"<object>{BOX}</object>", "object 1 (without name): no name"),
        ("<object><name>dog</name></object>", "object 1 (dog): no bndbox"),
        (
            f"<object><name>dog</name>{BOX.replace('<xmax>30</xmax>', '')}</object>",
            "object 1 (dog): no xmax",
        ),
        *(
            (
                f"<object><name>dog</name>{BOX.replace('30', text)}</object>",
                f"object 1 (dog): xmax is {text!r}, not a finite number",
            )
            for text in ("abc", "", "nan", "-inf", "1e999", "12,5")
        ),
    ],
)
def test_an_object_that_cannot_be_read_is_a_flaw(element: str, flaw: str) -> None:
    assert flaw_of(element) == flaw


def test_a_flaw_spares_the_other_objects() -> None:
    annotation = parse_annotation(
        f"<annotation><object><name>a</name></object><object><name>b</name>{BOX}</object></annotation>".encode()
    )
    assert [found.name for found in annotation.objects] == ["b"]
    assert annotation.flaws == ("object 1 (a): no bndbox",)


def test_flaws_are_single_lines() -> None:
    assert flaw_of("<object><name>a\nb</name></object>") == "object 1 (a b): no bndbox"


ENTITIES = b"""<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>"""
EXTERNAL = b"""<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not well-formed XML"),
        (b"<annotation><object></annotation>", "not well-formed XML"),
        (b"<annotation>\xff</annotation>", "not well-formed XML"),
        (b'{"annotation": 1}', "not well-formed XML"),
        (b"<html/>", "the outermost element is <html>, not <annotation>"),
        (b'<?xml version="1.0" encoding="gb2312"?><annotation>\xff</annotation>', "not readable as XML"),
        (b'<?xml version="1.0" encoding="zip"?><annotation/>', "not readable as XML"),
        (b'<?xml version="1.0" encoding="no-such"?><annotation/>', "not"),
        (ENTITIES, "not readable as XML"),
        (EXTERNAL, "not readable as XML"),
    ],
)
def test_what_is_no_annotation_is_an_error_of_one_line(content: bytes, message: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        parse_annotation(content)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_annotation_may_be_given_as_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(b"<annotation><size><width>4</width><height>3</height></size></annotation>")
    assert parse_annotation(path).size == (3, 4)
    with pytest.raises(AnnotationError, match="no such annotation"):
        parse_annotation(tmp_path / "b.xml")


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"000005\n000007\n", ["000005", "000007"]),
        (b"\xef\xbb\xbf000005\r\n\r\n000007  \r\n   \r\n", ["000005", "000007"]),
        (b"b\na\nb", ["b", "a", "b"]),
        (b"000005 -1\n000007  1\n000009  0\n", ["000005", "000007", "000009"]),
        (b"holiday 1\nholiday 2\nholiday 0\n", ["holiday 1", "holiday 2", "holiday 0"]),
        (b"", []),
    ],
)
def test_lists(tmp_path: Path, content: bytes, ids: list[str]) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    assert read_list(tmp_path / "train.txt") == ids


def test_lists_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.txt: not found"):
        read_list(tmp_path / "train.txt")
    (tmp_path / "train.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not UTF-8"):
        read_list(tmp_path / "train.txt")
