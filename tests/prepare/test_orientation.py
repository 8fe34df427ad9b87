"""Photos that EXIF turns: the stored picture is turned once, and boxes of the stored picture with it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.io import ImageReadMode, decode_image
from voc_folder import encode, picture

from ssd.prepare.annotations import AnnotatedObject, Annotation, Box
from ssd.prepare.checks import boxes_as_shown
from ssd.prepare.images import pack_image
from ssd.prepare.orientation import turn_box

ORIENTATIONS = range(1, 9)
BOX = (4, 6, 20, 16)  # in a stored picture of 40x30 pixels


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def photo(orientation: int, format: str = "JPEG", box: Box = BOX) -> bytes:
    """A black picture of 40x30 pixels with a white box, stored as a camera does."""
    image = Image.new("RGB", (40, 30))
    image.paste((255, 255, 255), tuple(int(side) for side in box))
    return encode(image, format, exif=exif(orientation))


def white_box(image: Image.Image) -> Box:
    """Where the white box is, found in the pixels."""
    found = image.convert("L").point(lambda value: 255 * (value > 127)).getbbox()
    assert found is not None
    return found


def as_shown(content: bytes) -> Image.Image:
    """The picture as Pillow turns it."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(content)))


def decoded(content: bytes) -> Image.Image:
    """As training decodes it."""
    image = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_photo_is_packed_as_it_is_shown_and_has_no_orientation_left(orientation: int, format: str) -> None:
    content = photo(orientation, format)
    packed = pack_image(content, 640, 95)
    shown = as_shown(content)
    assert packed.size == packed.original_size == (shown.height, shown.width)
    assert packed.orientation == orientation
    assert white_box(decoded(packed.content)) == white_box(shown)
    assert Image.open(io.BytesIO(packed.content)).getexif().get(0x0112, 1) == 1
    assert packed.reencoded == (orientation != 1 or format in ("WEBP", "TIFF"))
    if not packed.reencoded:
        assert packed.content == content


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_box_turns_with_its_picture(orientation: int) -> None:
    shown = as_shown(photo(orientation, "PNG"))
    assert turn_box(BOX, (shown.height, shown.width), orientation) == white_box(shown)
    x1, y1, x2, y2 = BOX
    swapped = turn_box((x2, y2, x1, y1), (shown.height, shown.width), orientation)
    assert (*swapped[2:], *swapped[:2]) == white_box(shown), "corners in the wrong order stay so"


def test_turned_and_shrunk_at_once() -> None:
    image = Image.new("RGB", (400, 300))
    image.paste((255, 255, 255), (40, 60, 200, 160))
    packed = pack_image(encode(image, exif=exif(6)), 40, 95)
    assert (packed.size, packed.original_size) == ((40, 30), (400, 300))
    # The sensor's left edge is the photo's upper one, its lower edge the photo's left one.
    assert white_box(decoded(packed.content)) == (14, 4, 24, 20)


def damaged() -> dict[str, bytes]:
    whole = exif(6).tobytes()
    return {
        "empty": b"Exif\0\0",
        "no TIFF": b"Exif\0\0" + b"x" * 30,
        "half": whole[: len(whole) // 2],
        "offset": whole[:10] + b"\xff\xff\xff\x7f" + whole[14:],
        "out of range": exif(9).tobytes(),
        "zero": exif(0).tobytes(),
    }


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("kind", damaged())
def test_a_damaged_tag_turns_nothing(kind: str, format: str) -> None:
    content = encode(picture(), format, exif=damaged()[kind])
    packed = pack_image(content, 640, 95)
    assert (packed.content, packed.orientation) == (content, 1)


def test_orientation_in_xmp_counts_as_in_pillow() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    content = encode(picture(), xmp=xmp)
    assert as_shown(content).size == (30, 40)
    assert pack_image(content, 640, 95).size == (40, 30)


def annotated(box: Box, size: tuple[int, int] | None, *, normalised: bool = False) -> Annotation:
    return Annotation(size, (AnnotatedObject("dog", box, box),), normalised=normalised)


STORED, SHOWN = (30, 40), (40, 30)  # height, width of a photo that is turned by a quarter


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_written_size_tells_which_way_boxes_are_meant(orientation: int) -> None:
    true_box = white_box(as_shown(photo(orientation, "PNG")))
    assert boxes_as_shown(annotated(true_box, SHOWN), SHOWN, orientation) == ([true_box], None)
    boxes, reason = boxes_as_shown(annotated(BOX, STORED), SHOWN, orientation)
    assert boxes == [true_box]
    expected = "size 40x30 is written, the image is 30x40 as EXIF orientation {} shows it; boxes turned"
    assert reason == expected.format(orientation)


@pytest.mark.parametrize(
    ("written", "shown", "orientation"),
    [(None, SHOWN, 6), ((7, 9), SHOWN, 6), ((30, 30), (30, 30), 6), (STORED, STORED, 3), (STORED, SHOWN, 1)],
    ids=["missing", "neither", "square", "half a turn", "no orientation"],
)
def test_where_the_size_does_not_tell_boxes_are_as_shown(
    written: tuple[int, int] | None, shown: tuple[int, int], orientation: int
) -> None:
    boxes, reason = boxes_as_shown(annotated(BOX, written), shown, orientation)
    assert boxes == [BOX]
    assert reason is None or reason.endswith("boxes kept")


def test_a_turned_photo_without_objects_needs_no_mending() -> None:
    assert boxes_as_shown(Annotation(STORED, ()), SHOWN, 6) == ([], None)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_normalised_boxes_are_fractions_of_the_image_as_shown(orientation: int) -> None:
    shown = as_shown(photo(orientation, "PNG"))
    true_box = white_box(shown)
    x1, y1, x2, y2 = (round(float(value), 6) for value in np.array(true_box) / [*shown.size, *shown.size])
    box = x1, y1, x2, y2
    boxes, reason = boxes_as_shown(
        annotated(box, None, normalised=True), (shown.height, shown.width), orientation
    )
    assert (boxes, reason) == ([true_box], None)
