"""Checks that an image decodes, and converts it to what the tensor file stores: JPEG or PNG, 8-bit RGB.

EXIF orientation is ignored, here and wherever these images are decoded: annotation tools that write Pascal
VOC XML count pixels in the stored orientation.

This module does not import torch, so that worker processes start quickly.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
"""Formats that are decoded, whatever the suffix. Pillow's others are disabled: one starts a program."""

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for damaged and for oversized images."""


class ImageError(ValueError):
    """An image that cannot be used; its message says why."""


@dataclass(frozen=True)
class PackedImage:
    """An image ready for the tensor file.

    content: JPEG or PNG, 8-bit RGB; size, original_size: (height, width) in pixels, after and before
    downscaling; reencoded: whether `content` differs from the file's bytes.
    """

    content: bytes
    size: tuple[int, int]
    original_size: tuple[int, int]
    reencoded: bool


def pack_image(content: bytes, max_side: int, jpeg_quality: int) -> PackedImage:
    """Decode an image completely; re-encode it only if it is too large or not a plain RGB JPEG or PNG.

    Args:
        content: a JPEG, PNG, BMP, GIF or WebP file; only the first of several frames is used.
        max_side: an image whose longer side has more pixels is downscaled to it.
        jpeg_quality: for re-encoded images.

    Raises:
        ImageError: it does not decode completely, or has more pixels than Pillow allows (89 million).
    """
    image = _decode(content)
    original_size = image.height, image.width
    longer = max(original_size)
    if longer <= max_side and _is_plain_rgb(image, content):
        return PackedImage(content, original_size, original_size, reencoded=False)
    rgb = _to_rgb(image)
    if longer > max_side:
        height, width = (max(round(side * max_side / longer), 1) for side in original_size)
        # Pillow widens its filters when downscaling, so the result is antialiased.
        rgb = rgb.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=jpeg_quality)
    return PackedImage(buffer.getvalue(), (rgb.height, rgb.width), original_size, reencoded=True)


def _decode(content: bytes) -> Image.Image:
    if not content:
        raise ImageError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                # For PNG, verify() reads to the end and checks the checksums, which load() does not.
                image.verify()
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                image.load()
                return image
    except UnidentifiedImageError:
        raise ImageError(f"not one of {', '.join(FORMATS)}") from None
    except _DAMAGE as error:
        raise ImageError(f"does not decode ({error})") from None


def _is_plain_rgb(image: Image.Image, content: bytes) -> bool:
    """Whether torchvision decodes these bytes to three uint8 channels, as Pillow just did."""
    if image.mode != "RGB":
        return False
    if image.format == "PNG":
        return "transparency" not in image.info and _is_plain_png(image, content)
    return image.format in ("JPEG", "MPO")  # MPO: a JPEG followed by further ones


def _is_plain_png(image: Image.Image, content: bytes) -> bool:
    """Whether a PNG has 8 bits per channel, no interlacing and a pixel stream of exactly the expected length.

    Pillow tolerates a stream that ends without its checksum; torchvision 0.29 crashes on it (a segmentation
    fault, so no later check could name the image).
    """
    bit_depth, interlaced = content[24], content[28]
    if bit_depth != 8 or interlaced:
        return False
    num_bytes = image.height * (1 + 3 * image.width)  # each row starts with one byte, its filter type
    stream = zlib.decompressobj()
    try:
        pixels = stream.decompress(_png_stream(content), num_bytes + 1)
    except zlib.error:
        return False
    return stream.eof and len(pixels) == num_bytes


def _png_stream(content: bytes) -> bytes:
    """The data of all IDAT chunks. A chunk has a length (4 bytes), type (4), data, checksum (4)."""
    parts = []
    start = 8
    while (kind := content[start + 4 : start + 8]) != b"IEND":
        (length,) = struct.unpack_from(">I", content, start)
        if kind == b"IDAT":
            parts.append(content[start + 8 : start + 8 + length])
        start += 12 + length
    return b"".join(parts)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit greyscale, which convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")
