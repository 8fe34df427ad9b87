"""Writer of the tensor file: one split of a data set in one safetensors file, without pickle.

Tensors of a file with N images and M objects:
    offsets      int64 [N + 1]      image i is images[offsets[i]:offsets[i + 1]]
    box_offsets  int64 [N + 1]      the objects of image i are rows box_offsets[i]:box_offsets[i + 1]
    labels       int64 [M]          1..C; 0 is background
    boxes        float32 [M, 4]     xyxy (x1, y1, x2, y2) in pixels, 0-based, half-open
    sizes        int32 [N, 2]       height, width in pixels
    difficult    bool [M]           Pascal VOC's difficult: ignored, but in training with train_on_difficult
    crowd        bool [M]           COCO's iscrowd: ignored in training and evaluation
    images       uint8 [bytes]      the encoded images (JPEG or PNG, 8-bit RGB), end to end
Metadata: format version, class names (without background) and image ids, both as JSON lists.

This module does not import torch, so that the worker processes of preprocess start quickly.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from ssd.files import replacing

TENSOR_FORMAT = "ssd-tensors-1"

_DTYPES = {"int64": "I64", "int32": "I32", "float32": "F32", "bool": "BOOL"}


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


def write_tensor_file(path: str | Path, images: Sequence[AnnotatedImage], class_names: Sequence[str]) -> None:
    """Pack `images` into `path`, atomically. The same images give the same bytes.

    The safetensors format is written here and not by its library, for two reasons. The library writes
    metadata in random order, so DVC would see a change where there is none; and it requires all images
    in one tensor, which would keep them in memory twice.
    """
    arrays = {
        "offsets": _offsets([len(image.encoded) for image in images]),
        "box_offsets": _offsets([len(image.labels) for image in images]),
        "labels": _joined([image.labels for image in images], np.int64),
        "boxes": _joined([image.boxes for image in images], np.float32).reshape(-1, 4),
        "sizes": np.array([image.size for image in images], np.int32).reshape(-1, 2),
        "difficult": _joined([image.difficult for image in images], np.bool_),
        "crowd": _joined([image.crowd for image in images], np.bool_),
    }
    metadata = {
        "format": TENSOR_FORMAT,
        "class_names": json.dumps(list(class_names)),
        "image_ids": json.dumps([image.id for image in images]),
    }
    header = _header(arrays, num_image_bytes=int(arrays["offsets"][-1]), metadata=metadata)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.writelines(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays.values())
        file.writelines(image.encoded for image in images)


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int64)


def _joined(rows: Sequence[Sequence[object]], dtype: type[np.generic]) -> np.ndarray:
    return np.array(list(chain.from_iterable(rows)), dtype)


def _header(arrays: dict[str, np.ndarray], *, num_image_bytes: int, metadata: dict[str, str]) -> bytes:
    """The JSON header of a safetensors file: dtype, shape and offsets of each tensor, the images last.

    The order of `arrays` keeps each of them aligned to its element size.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, array in arrays.items():
        header[name] = _entry(_DTYPES[array.dtype.name], array.shape, start, array.nbytes)
        start += array.nbytes
    header["images"] = _entry("U8", (num_image_bytes,), start, num_image_bytes)
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _entry(dtype: str, shape: tuple[int, ...], start: int, num_bytes: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + num_bytes]}
