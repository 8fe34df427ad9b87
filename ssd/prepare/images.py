"""Checks that an image decodes, and converts it to what the tensor file stores: JPEG or PNG, 8-bit RGB.

Images are stored as they are shown: EXIF orientation is applied here, once, and what is stored has none.
Transparency is dropped and the colour below it kept, as by torchvision, by Pillow's conversion to RGB and by
OpenCV, so that training sees what a user of the exported files sees. 16 bits per channel are scaled to 8.

This module does not import torch, so that worker processes start quickly.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssd.prepare.duplicates import Fingerprint, take_fingerprint
from ssd.prepare.orientation import UPRIGHT, read_orientation, turn_image
from ssd.prepare.plain_files import is_plain_jpeg, is_plain_png

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""Formats that are decoded, whatever the suffix. Pillow's others are disabled: one starts a program."""

TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg")
"""Pillow's names. libtiff's decoders of other ones (fax, old JPEG, LogLuv) are rare, and often had flaws."""

LARGEST_SIDE = 65_500
"""Pixels; the most that libjpeg writes."""

_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for damaged and for oversized images. MemoryError is neither."""


class ImageError(ValueError):
    """An image that cannot be used; its message says why."""


@dataclass(frozen=True)
class PackedImage:
    """An image ready for the tensor file.

    content: JPEG or PNG, 8-bit RGB, as shown; size, original_size: (height, width) in pixels as shown, after
    and before downscaling; orientation: 1 to 8, how the file's image was turned (see
    `ssd.prepare.orientation`); reencoded: whether `content` differs from the file's bytes; fingerprint: of
    the image as shown, after downscaling.
    """

    content: bytes
    size: tuple[int, int]
    original_size: tuple[int, int]
    orientation: int
    reencoded: bool
    fingerprint: Fingerprint


def pack_image(content: bytes, max_side: int, jpeg_quality: int) -> PackedImage:
    """Decode an image completely; re-encode it only if it is turned, too large or no plain RGB JPEG or PNG.

    Args:
        content: a file of one of FORMATS; only the first of several frames is used.
        max_side: an image whose longer side has more pixels is downscaled to it.
        jpeg_quality: for re-encoded images.

    Raises:
        ImageError: it does not decode completely, has more pixels than Pillow allows (89 million) or than
            LARGEST_SIDE on a side, or is of a kind that cannot be converted to 8-bit RGB.
        MemoryError: there is too little memory to decode it.
    """
    image, orientation = _decode(content)
    size = image.height, image.width
    longer = max(size)
    if longer <= max_side and orientation == UPRIGHT and _is_plain_rgb(image, content):
        return PackedImage(content, size, size, UPRIGHT, False, take_fingerprint(image))
    rgb = _to_rgb(image)
    if image.format != "TIFF":  # which Pillow turns in load()
        rgb = turn_image(rgb, orientation)
    original_size = rgb.height, rgb.width
    if longer > max_side:
        height, width = (max(round(side * max_side / longer), 1) for side in original_size)
        # Pillow widens its filters when downscaling, so the result is antialiased.
        rgb = rgb.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=jpeg_quality)
    size = rgb.height, rgb.width
    return PackedImage(buffer.getvalue(), size, original_size, orientation, True, take_fingerprint(rgb))


def decode_rgb(content: bytes, max_pixels: int | None = None) -> np.ndarray:
    """An image file as shown, turned by its EXIF orientation: uint8 RGB [H, W, 3].

    Only the first of several frames is used; transparency is dropped, 16 bits per channel are scaled to 8.

    Args:
        max_pixels: an image with more is not decoded; None leaves Pillow's limit, 89 million.

    Raises:
        ImageError, MemoryError: as `pack_image`.
    """
    image, orientation = _decode(content, max_pixels)
    rgb = _to_rgb(image)
    if image.format != "TIFF":  # which Pillow turns in load()
        rgb = turn_image(rgb, orientation)
    return np.asarray(rgb)


def _decode(content: bytes, max_pixels: int | None = None) -> tuple[Image.Image, int]:
    """The image, loaded, and its EXIF orientation."""
    if not content:
        raise ImageError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            _check_header(image, max_pixels)
            if image.format == "PNG":
                image.verify()  # reads to the end and checks the checksums, which load() does not
                image = Image.open(io.BytesIO(content), formats=FORMATS)
            with image:
                orientation = read_orientation(image) if image.format == "TIFF" else UPRIGHT
                image.load()
                return image, orientation if image.format == "TIFF" else read_orientation(image)
    except UnidentifiedImageError:
        raise ImageError(f"not one of {', '.join(FORMATS)}") from None
    except ImageError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if reason.startswith("out of memory"):
            raise MemoryError(reason) from None
        raise ImageError(f"does not decode ({reason})") from None


def _check_header(image: Image.Image, max_pixels: int | None) -> None:
    """Refuse, before it is decoded, what would take too much memory or a decoder that is not used."""
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise ImageError(f"{image.width} x {image.height} pixels; allowed: up to {max_pixels} in all")
    if max(image.size) > LARGEST_SIDE:
        raise ImageError(f"{image.width} x {image.height} pixels; allowed: up to {LARGEST_SIDE} per side")
    compression = image.info.get("compression")
    if image.format == "TIFF" and compression not in TIFF_COMPRESSIONS:
        raise ImageError(f"TIFF with the compression {compression}; save it without or with LZW")


def _is_plain_rgb(image: Image.Image, content: bytes) -> bool:
    """Whether torchvision decodes these bytes to three uint8 channels, as Pillow just did."""
    if image.mode != "RGB":
        return False
    if image.format == "PNG":
        return "transparency" not in image.info and is_plain_png(content)
    return image.format in ("JPEG", "MPO") and is_plain_jpeg(content)  # MPO: a JPEG followed by further ones


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # 16-bit greyscale, which convert() would clip at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageError("32-bit or floating-point pixels, of an unknown range; save it with 8 or 16 bits")
    image.info.pop("transparency", None)  # of some kinds of which Pillow would warn
    try:
        return image.convert("RGB")
    except ValueError:
        raise ImageError(f"its colours are {image.mode}; save it as RGB") from None
