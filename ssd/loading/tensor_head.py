"""Reads the head of a tensor file, everything but the images, and checks that it is what was written.

Nothing is parsed before its digest is checked. Format and writer are in ssd/tensor_writer.py.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ssd.errors import UserError
from ssd.tensor_writer import DTYPES, HEADER_START, TENSOR_FORMAT, header_digest

MAX_HEADER_BYTES = 2**30
"""Far beyond any header; by a damaged length, one as large as the images would be read into memory."""


@dataclass(frozen=True)
class TensorHead:
    """The content of a tensor file but for the images.

    tensors: by their names, with shapes and types as in ssd/tensor_writer.py. images: where the images begin
    and end in the file, bytes.
    """

    class_names: list[str]
    image_ids: list[str]
    tensors: dict[str, Tensor]
    images: tuple[int, int]


def read_head(path: Path) -> TensorHead:
    """Read and check the head of a tensor file.

    Raises:
        UserError: the file is missing, unreadable, damaged, of another format, or larger than memory.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found", path=path)
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise UserError(f"{path}: not enough memory to read it") from None


def _read(path: Path, file: BinaryIO) -> TensorHead:
    num_bytes = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    header = file.read(min(length, num_bytes, MAX_HEADER_BYTES))
    if not header.startswith(HEADER_START):
        raise _other_format(path, header)
    start = len(HEADER_START)
    if len(header) < length or header[start : start + 64] != header_digest(header):
        raise _damaged(path, "its header does not match its SHA-256")
    entries: dict[str, Any] = json.loads(header)
    metadata = entries.pop("__metadata__")
    first, last = (8 + length + offset for offset in entries.pop("images")["data_offsets"])
    if num_bytes != last:
        raise _damaged(path, f"it has {num_bytes:,} bytes, not {last:,}")
    arrays = bytearray(file.read(first - 8 - length))
    if hashlib.sha256(arrays).hexdigest() != metadata["arrays_sha256"]:
        raise _damaged(path, "its tensors do not match their SHA-256")
    head = TensorHead(
        json.loads(metadata["class_names"]),
        json.loads(metadata["image_ids"]),
        {name: _tensor(arrays, entry) for name, entry in entries.items()},
        (first, last),
    )
    problem = _problem(head)
    if problem:
        raise _damaged(path, problem)
    return head


def _tensor(content: bytearray, entry: dict[str, Any]) -> Tensor:
    """A tensor that shares the memory of `content`, by its entry in the header."""
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]).newbyteorder("<"), entry["shape"]
    start, end = entry["data_offsets"]
    array = np.frombuffer(content, dtype, (end - start) // dtype.itemsize, start)
    return torch.from_numpy(array.reshape(shape))


def _problem(head: TensorHead) -> str:
    """What is wrong with the tensors of a head, whoever wrote them; "" if nothing is."""
    n, tensors = len(head.image_ids), head.tensors
    m = len(tensors["labels"]) if "labels" in tensors else 0
    expected = {
        "offsets": (torch.int64, (n + 1,)),
        "box_offsets": (torch.int64, (n + 1,)),
        "crc32": (torch.int64, (n,)),
        "labels": (torch.int64, (m,)),
        "boxes": (torch.float32, (m, 4)),
        "sizes": (torch.int32, (n, 2)),
        "difficult": (torch.bool, (m,)),
        "crowd": (torch.bool, (m,)),
    }
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    for name in expected | found:
        if found.get(name) != expected.get(name):
            return f"{name} is {found.get(name)}, not {expected.get(name)}"
    first, last = head.images
    for name, end in (("offsets", last - first), ("box_offsets", m)):
        offsets = tensors[name]
        if offsets[0] != 0 or offsets[-1] != end or (offsets.diff() < 0).any():
            return f"{name} do not ascend from 0 to {end}"
    labels = tensors["labels"]
    if ((labels < 1) | (labels > len(head.class_names))).any():
        return f"labels are outside 1..{len(head.class_names)}"
    if (tensors["sizes"] < 1).any():
        return "sizes are not positive"
    return "" if tensors["boxes"].isfinite().all() else "boxes are not finite"


def _other_format(path: Path, header: bytes) -> UserError:
    found = re.search(rb'"format":"(ssd-tensors-\d+)"', header[:100])
    if found and (name := found[1].decode()) != TENSOR_FORMAT:
        return UserError(f"{path}: of the format {name}, not {TENSOR_FORMAT}", path=path)
    return UserError(f"{path}: not a tensor file of format {TENSOR_FORMAT}, or damaged", path=path)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: damaged: {reason}", path=path)
