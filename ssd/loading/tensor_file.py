"""Reads the tensor file, whose format and writer are in ssd/tensor_writer.py, and decodes its images."""

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ssd.errors import UserError, first_line, is_out_of_memory
from ssd.loading.tensor_head import read_head
from ssd.structures import Objects


class TensorFile:
    """Reads a tensor file: everything but the images is in memory, the images are memory-mapped.

    What is read is what was written: the head is checked here, each image when it is read.

    It may be pickled to data loading workers: each opens the file for itself.

    Args:
        path: of the file.
        train_on_difficult: difficult objects are like any other, as in training by the authors of SSD; else
            they are ignored, as in evaluation. Crowd is ignored in any case.

    Raises:
        UserError: the file is missing, damaged, or of another format.
    """

    def __init__(self, path: str | Path, *, train_on_difficult: bool = False) -> None:
        self.path = Path(path)
        head = read_head(self.path)
        self.class_names, self.image_ids = head.class_names, head.image_ids
        self.sizes: Tensor = head.tensors["sizes"]
        self.boxes: Tensor = head.tensors["boxes"]
        self.labels: Tensor = head.tensors["labels"]
        self.difficult: Tensor = head.tensors["difficult"]
        self.crowd: Tensor = head.tensors["crowd"]
        self.ignored = self.crowd if train_on_difficult else self.difficult | self.crowd
        self.offsets: Tensor = head.tensors["offsets"]
        self.box_offsets: Tensor = head.tensors["box_offsets"]
        self._crc32: Tensor = head.tensors["crc32"]
        self._place = head.images
        self._images: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_images": None}

    def encoded(self, index: int) -> Tensor:
        """The encoded bytes of image `index`, uint8 [bytes], a copy.

        Raises:
            UserError: they are not those that were written.
        """
        start, end = self.offsets[index : index + 2].tolist()
        if self._images is None:
            self._images = _map(self.path, *self._place)
        content = self._images[start:end].copy()
        if zlib.crc32(content.data) != int(self._crc32[index]):
            name = self.image_ids[index]
            raise UserError(f"{self.path}: damaged: image {name} does not match its CRC-32", path=self.path)
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


def _map(path: Path, start: int, end: int) -> np.ndarray:
    """Map a part of a file, from byte `start` to `end`, into memory.

    Raises:
        UserError: the file cannot be read any more, or is shorter than it was.
    """
    if start == end:
        return np.empty(0, dtype=np.uint8)
    try:
        return np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=(end - start,))
    except OSError as error:
        raise UserError(f"{path}: its images cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise UserError(f"{path}: damaged: shorter than it was when it was opened", path=path) from None
