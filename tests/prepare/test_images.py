"""Images: kept as they are where torchvision decodes them to 8-bit RGB, else re-encoded, or refused."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image
from voc_folder import encode, picture

from ssd.prepare.images import ImageError, PackedImage, pack_image


def pack(content: bytes, max_side: int = 640, jpeg_quality: int = 95) -> PackedImage:
    return pack_image(content, max_side, jpeg_quality)


def decoded(content: bytes) -> np.ndarray:
    """uint8 [H, W, 3], as training decodes it, with nothing asked for: three channels must come by nature."""
    image = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    return np.asarray(image.permute(1, 2, 0))


def far(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference, grey levels."""
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def png_with_stream(image: Image.Image, stream: bytes) -> bytes:
    """A PNG whose pixel stream is replaced, with checksums that fit."""
    content = encode(image, "PNG")
    start = content.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", content, start)
    chunk = b"IDAT" + stream
    framed = struct.pack(">I", len(stream)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content[:start] + framed + content[start + 12 + length :]


def png_stream(image: Image.Image) -> bytes:
    content = encode(image, "PNG")
    start = content.index(b"IDAT")
    (length,) = struct.unpack_from(">I", content, start - 4)
    return content[start + 4 : start + 4 + length]


@pytest.mark.parametrize(
    "content",
    [
        encode(picture(), "JPEG", quality=80),
        encode(picture(), "JPEG", progressive=True, subsampling=0),
        encode(picture(), "JPEG") + b"bytes after the end",
        encode(picture(), "MPO", save_all=True, append_images=[picture(1)]),
        encode(picture(), "PNG"),
        encode(picture(), "PNG", compress_level=0),
    ],
    ids=["jpeg", "progressive", "trailing bytes", "several jpegs", "png", "uncompressed png"],
)
def test_plain_rgb_is_kept_to_the_byte(content: bytes) -> None:
    packed = pack(content)
    assert packed == PackedImage(content, (30, 40), (30, 40), reencoded=False)
    assert far(decoded(packed.content), np.asarray(picture())) < 4


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_an_orientation_tag_is_kept_and_ignored(format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90 degrees
    content = encode(picture(), format, exif=exif)
    packed = pack(content)
    assert packed.content == content
    assert packed.size == (30, 40)
    assert decoded(packed.content).shape == (30, 40, 3)


def test_an_orientation_tag_does_not_outlive_shrinking() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    packed = pack(encode(picture(width=80, height=60), exif=exif), max_side=40)
    assert packed.size == (30, 40)
    assert b"Exif" not in packed.content
    assert far(decoded(packed.content), np.asarray(picture())) < 8


GREY16 = Image.fromarray(np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encode(picture().convert("L")), picture().convert("L")),
        (encode(picture().convert("CMYK")), picture()),
        (encode(picture().convert("L"), "PNG"), picture().convert("L")),
        (encode(picture().convert("1"), "PNG"), picture().convert("1")),
        (encode(picture().convert("LA"), "PNG"), picture().convert("L")),
        (encode(picture().convert("RGBA"), "PNG"), picture()),
        (encode(picture().quantize(), "PNG"), picture().quantize()),
        (encode(picture(), "PNG", transparency=(1, 2, 3)), picture()),
        (encode(GREY16, "PNG"), Image.fromarray((np.asarray(GREY16) >> 8).astype(np.uint8))),
        (encode(picture(), "BMP"), picture()),
        (encode(picture(), "WEBP", lossless=True), picture()),
        (encode(picture().quantize(), "GIF"), picture().quantize()),
    ],
    ids=[
        "grey jpeg",
        "cmyk",
        "grey png",
        "1-bit",
        "grey alpha",
        "alpha",
        "palette",
        "transparent colour",
        "16-bit grey",
        "bmp",
        "webp",
        "gif",
    ],
)
def test_other_images_become_rgb_jpeg(content: bytes, expected: Image.Image) -> None:
    packed = pack(content)
    assert packed.reencoded
    assert packed.content.startswith(b"\xff\xd8")
    assert packed.size == packed.original_size == (30, 40)
    assert far(decoded(packed.content), np.asarray(expected.convert("RGB"))) < 12


def test_a_16_bit_colour_png_becomes_8_bit() -> None:
    rows = np.zeros((30, 1 + 40 * 6), np.uint8)
    rows[:, 1::2] = 200  # the high bytes
    header = struct.pack(">IIBBBBB", 40, 30, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    framed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    packed = pack(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    assert packed.reencoded
    assert far(decoded(packed.content), np.full((30, 40, 3), 200)) < 2


@pytest.mark.parametrize(
    "stream",
    [png_stream(picture())[:-4], zlib.compress(zlib.decompress(png_stream(picture())) + bytes(500))],
    ids=["without its checksum", "too long"],
)
def test_a_png_that_only_pillow_forgives_is_re_encoded(stream: bytes) -> None:
    # torchvision ends the whole process at the first of these.
    packed = pack(png_with_stream(picture(), stream))
    assert packed.reencoded
    assert far(decoded(packed.content), np.asarray(picture())) < 12


JPEG = encode(picture(width=200, height=150))
PNG = encode(picture(width=200, height=150), "PNG")
BROKEN_PNG = PNG[: len(PNG) // 2] + bytes([PNG[len(PNG) // 2] ^ 255]) + PNG[len(PNG) // 2 + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        JPEG[:-2],
        JPEG[: len(JPEG) // 2],
        JPEG[:30],
        encode(picture(), progressive=True)[:-20],
        PNG[:-12],
        PNG[:-16],
        PNG[: len(PNG) // 2],
        PNG[:20],
        BROKEN_PNG,
        encode(picture(), "BMP")[:-100],
        b"",
        b"<html>not found</html>",
        encode(picture(), "TIFF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    ],
    ids=[
        "jpeg without its end",
        "half a jpeg",
        "jpeg header",
        "progressive",
        "png without its end",
        "png without checksum",
        "half a png",
        "png header",
        "png with a wrong byte",
        "bmp",
        "empty",
        "html",
        "tiff",
        "postscript",
    ],
)
def test_what_does_not_decode_whole_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        pack(content)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value), "the message must be the same in every run"


def test_more_pixels_than_pillow_allows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    with pytest.raises(ImageError, match="1200 pixels"):
        pack(encode(picture()))  # Pillow only warns of up to twice the limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1200)
    assert pack(encode(picture())).size == (30, 40)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(80, 60, (30, 40)), (60, 80, (40, 30)), (41, 41, (40, 40)), (40, 40, (40, 40)), (400, 3, (1, 40))],
)
def test_the_longer_side_is_shrunk_to_max_side(width: int, height: int, size: tuple[int, int]) -> None:
    packed = pack(encode(picture(width=width, height=height)), max_side=40)
    assert packed.size == size == decoded(packed.content).shape[:2]
    assert packed.original_size == (height, width)
    assert packed.reencoded == (size != (height, width))


def test_shrinking_is_antialiased() -> None:
    checkers = np.indices((400, 400)).sum(0) % 2 * 255
    packed = pack(encode(Image.fromarray(checkers.astype(np.uint8)), "PNG"), max_side=50)
    assert np.abs(decoded(packed.content).astype(float) - 127.5).max() < 8


def test_jpeg_quality_is_that_of_re_encoded_images() -> None:
    content = encode(picture(width=300, height=300), "BMP")
    assert len(pack(content, jpeg_quality=30).content) < len(pack(content, jpeg_quality=95).content)
