"""EXIF orientation: how a stored image is turned or mirrored to be shown, and the boxes with it.

Cameras store the sensor's rows and note how they were held in the tag Orientation, 1 (upright) to 8, of the
Exif standard (CIPA DC-008, 4.6.5 A).
"""

import struct

from PIL import Image
from PIL.ExifTags import Base
from PIL.Image import Transpose

from ssd.prepare.annotations import Box

UPRIGHT = 1

_TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""As in PIL.ImageOps.exif_transpose; rotations are counter-clockwise."""

_SWAPS_AXES, _MIRRORS_X, _MIRRORS_Y = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)

_DAMAGED_EXIF = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)
"""What Pillow raises for EXIF that it cannot read."""


def read_orientation(image: Image.Image) -> int:
    """The orientation of an opened image, 1 to 8; 1 (upright) if it has none, or if its EXIF is damaged.

    Of a TIFF it must be read before `load`, in which Pillow turns the image and forgets the tag.
    """
    try:
        found = image.getexif().get(Base.Orientation)
        return int(found) if found in _TRANSPOSES else UPRIGHT
    except _DAMAGED_EXIF:
        return UPRIGHT


def turn_image(image: Image.Image, orientation: int) -> Image.Image:
    """The image as shown, of the image as stored."""
    return image if orientation == UPRIGHT else image.transpose(_TRANSPOSES[orientation])


def swaps_sides(orientation: int) -> bool:
    """Whether width and height of the image as shown are height and width of the image as stored."""
    return orientation in _SWAPS_AXES


def turn_box(box: Box, size: tuple[int, int], orientation: int) -> Box:
    """A box in the image as shown, of the same box in the image as stored.

    Args:
        box: xyxy in pixels, 0-based, half-open; corners in the wrong order stay so.
        size: (height, width) of the image as shown.
        orientation: 1 to 8.
    """
    height, width = size
    x1, y1, x2, y2 = box
    if orientation in _SWAPS_AXES:
        x1, y1, x2, y2 = y1, x1, y2, x2
    if orientation in _MIRRORS_X:
        x1, x2 = width - x2, width - x1
    if orientation in _MIRRORS_Y:
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2
