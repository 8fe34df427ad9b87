"""Reads tensor files, whose format and writer are in ssd/tensor_writer.py, and decodes their images."""

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ssd.errors import UserError, first_line, is_out_of_memory
from ssd.loading.tensor_head import TensorHead, read_head
from ssd.structures import Objects
from ssd.tensor_writer import SHARD_NAME


class TensorFile:
    """Reads a split, in one tensor file or a folder of several (shards), whose images count through.

    Everything but the images is in memory. The images are memory-mapped: those of a shard when the first of
    them is read, so that a process maps only what it reads.

    What is read is what was written: the heads are checked here, each image when it is read.

    It may be pickled to data loading workers: each opens the files for itself.

    Args:
        path: of the file, or the folder.
        train_on_difficult: difficult objects are like any other, as in training by the authors of SSD; else
            they are ignored, as in evaluation. Crowd is ignored in any case.

    Attributes:
        shards: the files, in order.

    Raises:
        UserError: a file is missing, damaged, of another format, or of other classes than the first.
    """

    def __init__(self, path: str | Path, *, train_on_difficult: bool = False) -> None:
        self.path = Path(path)
        self.shards = find_shards(self.path)
        heads = [read_head(shard) for shard in self.shards]
        self.class_names = _only_classes(self.shards, heads)
        self.image_ids = list(chain.from_iterable(head.image_ids for head in heads))
        self.sizes = _joined(heads, "sizes")
        self.boxes = _joined(heads, "boxes")
        self.labels = _joined(heads, "labels")
        self.difficult = _joined(heads, "difficult")
        self.crowd = _joined(heads, "crowd")
        self.ignored = self.crowd if train_on_difficult else self.difficult | self.crowd
        self.box_offsets = _cumulative([head.tensors["box_offsets"].diff() for head in heads])
        self._crc32 = _joined(heads, "crc32")
        self._firsts = [0, *accumulate(len(head.image_ids) for head in heads)]
        # Bytes of each image in its file.
        self._starts = torch.cat([head.images[0] + head.tensors["offsets"][:-1] for head in heads])
        self._ends = torch.cat([head.images[0] + head.tensors["offsets"][1:] for head in heads])
        self._num_bytes = [head.images[1] for head in heads]
        self._maps: list[np.ndarray | None] = [None] * len(heads)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_maps": [None] * len(self.shards)}

    def encoded(self, index: int) -> Tensor:
        """The encoded bytes of image `index`, uint8 [bytes], a copy.

        Raises:
            UserError: they are not those that were written.
        """
        shard = bisect_right(self._firsts, index) - 1
        mapped = self._maps[shard]
        if mapped is None:
            mapped = self._maps[shard] = _map(self.shards[shard], self._num_bytes[shard])
        content = mapped[int(self._starts[index]) : int(self._ends[index])].copy()
        if zlib.crc32(content.data) != int(self._crc32[index]):
            name, path = self.image_ids[index], self.shards[shard]
            raise UserError(f"{path}: damaged: image {name} does not match its CRC-32", path=path)
        return torch.from_numpy(content)

    def image(self, index: int) -> Tensor:
        """Decode image `index` to uint8 RGB [3, H, W]; preprocess has turned it as EXIF shows it.

        Raises:
            UserError: it is damaged, does not decode, or there is too little memory for it.
        """
        encoded, name = self.encoded(index), self.image_ids[index]
        try:
            image: Tensor = decode_image(encoded, ImageReadMode.RGB)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise UserError(
                    f"{self.path}: not enough memory to decode image {name}: {first_line(error)}"
                ) from None
            raise UserError(f"{self.path}: image {name} does not decode ({error})", path=self.path) from None
        return image

    def objects(self, index: int) -> Objects:
        """The objects of image `index`."""
        rows = slice(*self.box_offsets[index : index + 2].tolist())
        return Objects(self.boxes[rows], self.labels[rows], self.ignored[rows])

    def normalised_boxes(self) -> Tensor:
        """Boxes of all objects that are not ignored: float32 [M, 4], xyxy, normalised to [0, 1]."""
        sizes = self.sizes.repeat_interleave(self.box_offsets.diff(), dim=0).flip(1).repeat(1, 2)
        return (self.boxes / sizes)[~self.ignored]

    def images_with_objects(self) -> list[int]:
        """Images with an object that is not ignored, in order."""
        images = torch.arange(len(self)).repeat_interleave(self.box_offsets.diff())
        has_objects = torch.zeros(len(self), dtype=torch.bool)
        has_objects[images[~self.ignored]] = True
        return [index for index, has in enumerate(has_objects.tolist()) if has]


def find_shards(path: Path) -> list[Path]:
    """The tensor files of a split: `path` itself, or the shards in that folder, in order.

    Raises:
        UserError: a folder has no shard, lacks one, or has those of two splits.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if SHARD_NAME.fullmatch(file.name))
    if not found:
        raise UserError(f"{path}: no tensor file is in it", path=path)
    matches = [SHARD_NAME.fullmatch(file.name) for file in found]
    totals = {match[2] for match in matches if match}
    if len(totals) > 1:
        raise UserError(f"{path}: tensor files of {' and of '.join(sorted(totals))} in one folder", path=path)
    numbers = {int(match[1]) for match in matches if match}
    missing = [number for number in range(int(totals.pop())) if number not in numbers]
    if missing:
        raise UserError(f"{path}: tensor file {missing[0]:05d} is missing beside {found[0].name}", path=path)
    return found


def _only_classes(shards: Sequence[Path], heads: Sequence[TensorHead]) -> list[str]:
    """The class names of all shards."""
    first = heads[0].class_names
    for shard, head in zip(shards, heads, strict=True):
        if head.class_names != first:
            raise UserError(f"{shard}: its classes are not those of {shards[0].name} beside it", path=shard)
    return first


def _joined(heads: Sequence[TensorHead], name: str) -> Tensor:
    return torch.cat([head.tensors[name] for head in heads])


def _cumulative(lengths: Sequence[Tensor]) -> Tensor:
    """int64 [N + 1]: 0, then the sums of the first 1, 2, ... N of all `lengths`."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), *lengths]).cumsum(0)


def _map(path: Path, num_bytes: int) -> np.ndarray:
    """Map a file into memory: uint8 [num_bytes].

    Raises:
        UserError: the file cannot be read any more, or is shorter than it was.
    """
    try:
        return np.memmap(path, dtype=np.uint8, mode="r", shape=(num_bytes,))
    except OSError as error:
        raise UserError(f"{path}: its images cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise UserError(f"{path}: damaged: shorter than it was when it was opened", path=path) from None
