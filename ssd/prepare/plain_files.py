"""Whether a JPEG or PNG file is so plain that torchvision, with which training decodes, certainly reads it.

Pillow forgives what torchvision refuses, and at some streams torchvision 0.29 ends the whole process with a
segmentation fault. Preprocess does not ask torchvision itself: to import torch takes each of its workers
three seconds, as long as decoding two thousand images. What is not certainly plain is re-encoded instead.
"""

import re
import struct
import zlib

_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Ends the compressed pixels, in which FF 00 stands for FF, and FF D0 to FF D7 are restart markers."""

_SOS, _EOI = 0xDA, 0xD9
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended sequential and progressive, with Huffman coding
_OTHER_CODINGS = (0xC3, *range(0xC5, 0xD0))  # lossless, hierarchical and arithmetic coding
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))

_PNG_HEADER = 8 + 25  # bytes of the signature and of the first chunk, IHDR
_CHUNK_TYPE = re.compile(rb"[a-z][A-Za-z][A-Z][A-Za-z]")
"""An ancillary chunk, which libpng may ignore: the first letter is small, the third must not be."""

_LARGEST_CHUNK = 8_000_000  # bytes; libpng refuses larger ones


def is_plain_jpeg(content: bytes) -> bool:
    """Whether a JPEG of 8 bits per channel has all its segments, one directly after the other, to its end.

    What follows the end-of-image marker (in an MPO, further images) does not matter. See ITU-T T.81, annex B.
    """
    start = 2
    while found := _MARKER.match(content, start):
        marker, start = found[1][0], found.end()
        if marker == _EOI:
            return True
        if marker in _OTHER_CODINGS or marker in _WITHOUT_LENGTH or start + 2 > len(content):
            return False
        if marker in _FRAMES and content[start + 2 : start + 3] != b"\x08":
            return False
        (length,) = struct.unpack_from(">H", content, start)
        start += length
        if marker == _SOS:
            after = _MARKER_IN_SCAN.search(content, start)
            start = after.start() if after else len(content)
    return False


def is_plain_png(content: bytes) -> bool:
    """Whether a PNG is 8-bit RGB, not interlaced, has no chunk that libpng could refuse, and all its pixels.

    The pixel stream must have exactly the expected length. See the PNG specification (W3C), 5 and 11. The
    checksums of the chunks are not checked here, but by `Image.verify`.
    """
    if len(content) < _PNG_HEADER or content[12:16] != b"IHDR":
        return False
    width, height, *kind = struct.unpack_from(">IIBBBBB", content, 16)
    if kind != [8, 2, 0, 0, 0]:  # bit depth, RGB, compression, filters, not interlaced
        return False
    stream = _png_stream(content)
    num_bytes = height * (1 + 3 * width)  # each row starts with one byte, its filter type
    if stream is None or len(stream) > max(_LARGEST_CHUNK, num_bytes):
        return False
    decompressor = zlib.decompressobj()
    try:
        pixels = decompressor.decompress(stream, num_bytes + 1)
    except zlib.error:
        return False
    return decompressor.eof and not decompressor.unused_data and len(pixels) == num_bytes


def _png_stream(content: bytes) -> bytes | None:
    """The data of all IDAT chunks, or None if there is a chunk that is not plain.

    A chunk has a length (4 bytes), type (4), data, checksum (4).
    """
    parts: list[bytes] = []
    start, before = _PNG_HEADER, b"IHDR"
    while (kind := content[start + 4 : start + 8]) != b"IEND":
        if len(kind) < 4:
            return None
        (length,) = struct.unpack_from(">I", content, start)
        if kind == b"IDAT":
            if parts and before != b"IDAT":
                return None
            parts.append(content[start + 8 : start + 8 + length])
        elif length > _LARGEST_CHUNK or not _CHUNK_TYPE.fullmatch(kind):
            return None
        start, before = start + 12 + length, kind
    return b"".join(parts)
