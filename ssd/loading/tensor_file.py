"""Reads the tensor file, whose format and writer are in ssd/tensor_writer.py, and decodes its images."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ssd.errors import UserError
from ssd.structures import Objects
from ssd.tensor_writer import TENSOR_FORMAT


class TensorFile:
    """Reads a tensor file: everything but the images is in memory, the images are memory-mapped.

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
        if not self.path.is_file():
            raise UserError(f"{path}: not found", path=path)
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                names = [name for name in file.keys() if name != "images"]  # noqa: SIM118 (no mapping)
                tensors = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error})", path=path) from None
        if metadata.get("format") != TENSOR_FORMAT:
            found = metadata.get("format", "no format")
            raise UserError(f"{path}: {found}, not {TENSOR_FORMAT}", path=path)
        self.class_names: list[str] = json.loads(metadata["class_names"])
        self.image_ids: list[str] = json.loads(metadata["image_ids"])
        self.sizes: Tensor = tensors["sizes"]
        self.boxes: Tensor = tensors["boxes"]
        self.labels: Tensor = tensors["labels"]
        self.difficult: Tensor = tensors["difficult"]
        self.crowd: Tensor = tensors["crowd"]
        self.ignored = self.crowd if train_on_difficult else self.difficult | self.crowd
        self.offsets: Tensor = tensors["offsets"]
        self.box_offsets: Tensor = tensors["box_offsets"]
        self._images: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_images": None}

    def encoded(self, index: int) -> Tensor:
        """The encoded bytes of image `index`, uint8 [bytes], a copy."""
        start, end = self.offsets[index : index + 2].tolist()
        if self._images is None:
            self._images = _map_images(self.path)
        return torch.from_numpy(self._images[start:end].copy())

    def image(self, index: int) -> Tensor:
        """Decode image `index` to uint8 RGB [3, H, W]; preprocess has turned it as EXIF shows it.

        Raises:
            UserError: it does not decode.
        """
        try:
            image: Tensor = decode_image(self.encoded(index), ImageReadMode.RGB)
        except RuntimeError as error:
            name = self.image_ids[index]
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


def _map_images(path: Path) -> np.ndarray:
    """Map the `images` tensor of a safetensors file: an 8-byte header length, a JSON header, the data."""
    with path.open("rb") as file:
        header_length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_length))
    start, end = header["images"]["data_offsets"]
    if start == end:
        return np.empty(0, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r", offset=8 + header_length + start, shape=(end - start,))
