"""Images: kept as they are where torchvision decodes them to 8-bit RGB, else re-encoded, or refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image
from voc_folder import encode, picture

from ssd.layouts import IMAGE_SUFFIXES
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
    assert (packed.content, packed.reencoded, packed.orientation) == (content, False, 1)
    assert packed.size == packed.original_size == (30, 40)
    assert far(decoded(packed.content), np.asarray(picture())) < 4


GREY16 = Image.fromarray(np.linspace(0, 65535, 1200).reshape(30, 40).astype(np.uint16))
GREY8 = Image.fromarray((np.asarray(GREY16) >> 8).astype(np.uint8))
CLEAR = picture()
CLEAR.putalpha(0)


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
        (encode(GREY16, "PNG"), GREY8),
        (encode(picture(), "BMP"), picture()),
        (encode(picture(), "WEBP", lossless=True), picture()),
        (encode(picture().quantize(), "GIF"), picture().quantize()),
        (encode(picture(), "GIF", save_all=True, append_images=[picture(1)]), picture().quantize()),
        (encode(picture(), "TIFF"), picture()),
        (encode(picture(), "TIFF", compression="tiff_lzw"), picture()),
        (encode(picture(), "TIFF", compression="tiff_adobe_deflate"), picture()),
        (encode(picture(), "TIFF", compression="packbits"), picture()),
        (encode(picture(), "TIFF", compression="jpeg"), picture()),
        (encode(picture().convert("CMYK"), "TIFF"), picture()),
        (encode(picture(), "TIFF", save_all=True, append_images=[picture(1)]), picture()),
        (encode(GREY16, "TIFF"), GREY8),
        (encode(picture(), "PPM"), picture()),
        (b"P5 40 30 65535 " + np.asarray(GREY16).astype(">u2").tobytes(), GREY8),
        (encode(CLEAR, "PNG"), picture()),
        (encode(picture().quantize(), "PNG", transparency=b"\0\x80" * 9), picture().quantize()),
        (encode(CLEAR, "WEBP", lossless=True, exact=True), picture()),
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
        "several gifs",
        "tiff",
        "lzw tiff",
        "deflate tiff",
        "packbits tiff",
        "jpeg tiff",
        "cmyk tiff",
        "tiff pages",
        "16-bit tiff",
        "ppm",
        "16-bit pgm",
        "wholly transparent",
        "transparent palette",
        "transparent webp",
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
        encode(picture(), "TIFF")[:-100],
        encode(picture(), "TIFF", compression="tiff_lzw")[:-100],
        encode(picture(), "JPEG2000"),
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
        "half a tiff",
        "half an lzw tiff",
        "jpeg 2000",
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


def png_of_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of (type, data) pairs, with checksums that fit."""
    framed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


PIXELS = (b"IDAT", zlib.compress(bytes(3 * (1 + 3 * 4))))
END = (b"IEND", b"")


@pytest.mark.parametrize(
    "chunks",
    [
        [header(4, 3), PIXELS, END],
        [header(4, 3), (b"tEXt", b"a\0b"), (b"tIME", bytes(7)), PIXELS, (b"prVt", b"own"), END],
        [header(4, 3), (b"IDAT", PIXELS[1][:5]), (b"IDAT", b""), (b"IDAT", PIXELS[1][5:]), END],
    ],
    ids=["plain", "ancillary chunks", "several IDAT"],
)
def test_a_png_with_what_libpng_ignores_is_kept(chunks: list[tuple[bytes, bytes]]) -> None:
    content = png_of_chunks(*chunks)
    packed = pack(content)
    assert packed.content == content
    assert (decoded(content) == np.asarray(Image.open(io.BytesIO(content)))).all()


# torchvision 0.29 refuses the first four.
DOUBTFUL = {
    "png, reserved bit": png_of_chunks(header(4, 3), (b"tExt", b""), PIXELS, END),
    "png, compression": png_of_chunks((b"IHDR", header(4, 3)[1][:10] + b"\x09\0\0"), PIXELS, END),
    "png, critical chunk": png_of_chunks(header(4, 3), (b"ABCD", b""), PIXELS, END),
    "jpeg, segment over the end": JPEG[:-20] + b"\xff\xe1\xff\xff" + JPEG[-20:],
    "jpeg, bytes between segments": JPEG[:20] + bytes(5) + JPEG[20:],
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_pillow_reads_and_training_may_not_is_re_encoded(case: str) -> None:
    content = DOUBTFUL[case]
    Image.open(io.BytesIO(content)).load()
    packed = pack(content)
    assert packed.reencoded
    assert decoded(packed.content).shape[:2] == packed.size


@pytest.mark.parametrize("restart", [0, 1])
def test_a_jpeg_with_markers_in_its_pixels_is_kept(restart: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), quality=100, restart_marker_blocks=restart, comment=b"\xff\xd9")
    assert b"\xff\x00" in content
    assert pack(content).content == content


def test_damaged_files_are_read_by_training_or_refused_here() -> None:
    """Random changes of one byte or a few: no traceback, and what is kept decodes."""
    random = np.random.default_rng(0)
    whole = [
        encode(picture(), progressive=True),
        encode(picture(), restart_marker_blocks=2),
        PNG,
        encode(picture().quantize(), "GIF"),
        encode(picture(), "WEBP"),
        encode(picture(), "TIFF", compression="tiff_lzw"),
        encode(picture(), "BMP"),
    ]
    num_kept = 0
    for number in range(700):
        content = bytearray(whole[number % len(whole)])
        for place in random.integers(0, [200, len(content)], 2):
            content[place % len(content)] = random.integers(256)
        try:
            packed = pack(bytes(content))
        except ImageError as error:
            assert "\n" not in str(error)
            continue
        assert decoded(packed.content).shape[:2] == packed.size
        num_kept += not packed.reencoded
    assert num_kept > 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_of_chunks(header(4, 3), END), "does not decode"),
        (
            png_of_chunks(header(80_000_000, 1), PIXELS, END),
            "80000000 x 1 pixels; allowed: up to 65500 per side",
        ),
        (
            png_of_chunks(header(1, 80_000_000), PIXELS, END),
            "1 x 80000000 pixels; allowed: up to 65500 per side",
        ),
        (encode(Image.new("F", (4, 3)), "TIFF"), "32-bit or floating-point pixels"),
        (encode(Image.new("I", (4, 3)), "TIFF"), "32-bit or floating-point pixels"),
        (
            encode(picture().convert("1"), "TIFF", compression="group4"),
            "TIFF with the compression group4; save it without or with LZW",
        ),
    ],
    ids=["png without pixels", "too wide", "too high", "float", "32-bit", "fax"],
)
def test_the_reason_why_an_image_is_refused_is_told(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        pack(content)


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory when reading image file")])
def test_running_out_of_memory_is_no_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's decoders of single formats say it in their own way."""

    def out_of_memory(image: Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", out_of_memory)
    with pytest.raises(MemoryError):
        pack(encode(picture()))


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_of_an_image_is_of_a_format_that_is_decoded(suffix: str, tmp_path: Path) -> None:
    image = picture().convert("1" if suffix == ".pbm" else "RGB")
    image.save(tmp_path / f"a{suffix}")
    assert pack((tmp_path / f"a{suffix}").read_bytes()).size == (30, 40)
