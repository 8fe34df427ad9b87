"""Writer of tensor files: a split of a data set in one or more safetensors files (shards), without pickle.

A split is a folder of files 00000-of-00002.safetensors, ...; its images are those of the files, in order.

Tensors of a file with N images and M objects:
    offsets      int64 [N + 1]      image i is images[offsets[i]:offsets[i + 1]]
    box_offsets  int64 [N + 1]      the objects of image i are rows box_offsets[i]:box_offsets[i + 1]
    crc32        int64 [N]          CRC-32 of the bytes of each image
    labels       int64 [M]          1..C; 0 is background
    boxes        float32 [M, 4]     xyxy (x1, y1, x2, y2) in pixels, 0-based, half-open
    sizes        int32 [N, 2]       height, width in pixels
    difficult    bool [M]           Pascal VOC's difficult: ignored, but in training with train_on_difficult
    crowd        bool [M]           COCO's iscrowd: ignored in training and evaluation
    images       uint8 [bytes]      the encoded images (JPEG or PNG, 8-bit RGB), end to end
Metadata: format version; two digests; class names (without background) and image ids, both as JSON lists.
`sha256` is of the header with 64 zeros in its own place, `arrays_sha256` of all tensors but the images, as
they lie in the file. So a reader knows that it reads what was written: the header and the tensors when it
opens the file, each image by its CRC when it reads it.

This module does not import torch, so that the worker processes of preprocess start quickly.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from ssd.files import replacing

TENSOR_FORMAT = "ssd-tensors-2"
HEADER_START = f'{{"__metadata__":{{"format":"{TENSOR_FORMAT}","sha256":"'.encode()
"""The first bytes of the header; its digest follows."""

DTYPES = {"I64": np.int64, "I32": np.int32, "F32": np.float32, "BOOL": np.bool_}
"""safetensors' names of the types in the file."""

SHARD_NAME = re.compile(r"(\d{5})-of-(\d{5})\.safetensors")
"""Name of a tensor file in the folder of its split: its number, and how many there are."""

_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
_NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class AnnotatedImage:
    """One image with its objects, as preprocess passes it to the writer.

    encoded: the JPEG or PNG file, possibly a view of a larger file, because a data set may not fit into
    memory; size: (height, width) in pixels; boxes: xyxy in pixels, 0-based, half-open; labels: 1..C;
    difficult, crowd: one flag per object.
    """

    id: str
    encoded: bytes | memoryview
    size: tuple[int, int]
    boxes: Sequence[tuple[float, float, float, float]]
    labels: Sequence[int]
    difficult: Sequence[bool]
    crowd: Sequence[bool]


def write_shards(
    folder: Path, shards: Sequence[Sequence[AnnotatedImage]], class_names: Sequence[str]
) -> None:
    """Write a split: a tensor file for each of `shards`, which may be empty, into a new folder."""
    folder.mkdir()
    for number, images in enumerate(shards):
        name = f"{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensor_file(folder / name, images, class_names)


def write_tensor_file(path: str | Path, images: Sequence[AnnotatedImage], class_names: Sequence[str]) -> None:
    """Pack `images` into `path`, atomically. The same images give the same bytes.

    The safetensors format is written here and not by its library, for two reasons. The library writes
    metadata in random order, so DVC would see a change where there is none; and it requires all images
    in one tensor, which would keep them in memory twice.
    """
    arrays = {
        "offsets": _offsets([len(image.encoded) for image in images]),
        "box_offsets": _offsets([len(image.labels) for image in images]),
        "crc32": np.zeros(len(images), np.int64),
        "labels": _joined([image.labels for image in images], np.int64),
        "boxes": _joined([image.boxes for image in images], np.float32).reshape(-1, 4),
        "sizes": np.array([image.size for image in images], np.int32).reshape(-1, 2),
        "difficult": _joined([image.difficult for image in images], np.bool_),
        "crowd": _joined([image.crowd for image in images], np.bool_),
    }
    names = {
        "class_names": json.dumps(list(class_names)),
        "image_ids": json.dumps([image.id for image in images]),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        # The images are read once, for they may be more than memory holds; their CRCs do not change the
        # length of the head.
        file.seek(len(_head(arrays, names)))
        for index, image in enumerate(images):
            file.write(image.encoded)
            arrays["crc32"][index] = zlib.crc32(image.encoded)
        file.seek(0)
        file.write(_head(arrays, names))


def header_digest(header: bytes) -> bytes:
    """The SHA-256, in hex digits, of a header that begins with HEADER_START; its digest counts as zeros."""
    start = len(HEADER_START)
    blank = header[:start] + _NO_DIGEST.encode() + header[start + len(_NO_DIGEST) :]
    return hashlib.sha256(blank).hexdigest().encode()


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int64)


def _joined(rows: Sequence[Sequence[object]], dtype: type[np.generic]) -> np.ndarray:
    return np.array(list(chain.from_iterable(rows)), dtype)


def _head(arrays: dict[str, np.ndarray], names: dict[str, str]) -> bytes:
    """All bytes of the file before the images: the length of the header, the header, the arrays."""
    content = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays.values())
    digests = {"sha256": _NO_DIGEST, "arrays_sha256": hashlib.sha256(content).hexdigest()}
    header = _header(arrays, {"format": TENSOR_FORMAT, **digests, **names})
    start = len(HEADER_START)
    header = header[:start] + header_digest(header) + header[start + len(_NO_DIGEST) :]
    return len(header).to_bytes(8, "little") + header + content


def _header(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """The JSON header of a safetensors file: dtype, shape and offsets of each tensor, the images last.

    The order of `arrays` keeps each of them aligned to its element size.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, array in arrays.items():
        header[name] = _entry(_NAMES[array.dtype], array.shape, start, array.nbytes)
        start += array.nbytes
    num_image_bytes = int(arrays["offsets"][-1])
    header["images"] = _entry("U8", (num_image_bytes,), start, num_image_bytes)
    text = json.dumps(header, separators=(",", ":")).encode()
    assert text.startswith(HEADER_START), "readers look for the digest there"
    return text + b" " * (-len(text) % 8)


def _entry(dtype: str, shape: tuple[int, ...], start: int, num_bytes: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + num_bytes]}
