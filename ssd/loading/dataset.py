"""From a tensor file to batches: decode, one resample, padded targets. Repeatable whatever the workers."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_image

from ssd.errors import UserError
from ssd.loading.augment import Geometry, sample_view, seen
from ssd.loading.cache import DecodedCache
from ssd.loading.mosaic import Part, mosaic
from ssd.loading.tensor_file import Objects, TensorFile
from ssd.loading.view import View, render, whole
from ssd.matching import Targets
from ssd.normalisation import MEAN, STD
from ssd.seeding import seeded


@dataclass(frozen=True)
class Batch:
    """A batch as the training and evaluation loops get it.

    images: uint8 [B, 3, S, S]; targets: padded, in shares of the view; indices: rows of the tensor
    file, for names in messages and for scoring in source pixels.
    """

    images: Tensor
    targets: Targets
    indices: list[int]

    def pin_memory(self) -> "Batch":
        """Called by the DataLoader so that copies to a GPU need not wait."""
        t = self.targets
        targets = Targets(t.boxes.pin_memory(), t.labels.pin_memory(), t.ignored.pin_memory())
        return Batch(self.images.pin_memory(), targets, self.indices)


class SampleKey(NamedTuple):
    """What a sample depends on, besides the seed.

    side: input size, pixels; showing: counts from 0 how often the epoch shows the image.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # the name hides tuple's method, which no key needs
    side: int
    showing: int = 0


LoadedSample = tuple[Tensor, Objects, int]
"""An image at input size, its objects, its row in the tensor file."""


class DetectionDataset(Dataset[LoadedSample]):
    """Images of a tensor file at the network's input size, with their objects in shares of the view.

    Args:
        file: the split.
        side: input size, pixels, where no key asks for another.
        geometry: augmentation; None stretches the whole image.
        seed: with the key it decides all randomness of a sample, so that neither the number of workers
            nor their order matters.
        cache: keeps decoded images; None decodes each time.
    """

    def __init__(
        self,
        file: TensorFile,
        side: int,
        geometry: Geometry | None = None,
        seed: int = 0,
        cache: DecodedCache | None = None,
    ) -> None:
        self.file = file
        self.side = side
        self.geometry = geometry
        self.seed = seed
        self.cache = cache
        self.fill = torch.tensor(MEAN).round().to(torch.uint8)

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        """The sample of a key: uint8 [3, S, S] image, objects, index."""
        image, objects, _ = self.sample(key)
        return image, objects, key.index

    def sample(self, key: SampleKey) -> tuple[Tensor, Objects, View | None]:
        """Image and objects of a key, and what part of the source the image shows (None: a mosaic)."""
        image, objects = self.part(key.index)
        height, width = image.shape[1:]
        if self.geometry is None:
            view = whole(height, width)
        else:
            generator = seeded("view", self.seed, key.epoch, key.index, key.showing)
            if torch.rand((), generator=generator) < self.geometry.mosaic:
                others = torch.randint(len(self), (3,), generator=generator).tolist()
                parts = [(image, objects), *map(self.part, others)]
                canvas, found = mosaic(parts, key.side, self.geometry, generator)
                if self.geometry.object_crop is None or not _lost_all(parts, found):
                    return canvas, found, None
            view = sample_view(height, width, objects.boxes, self.geometry, generator, objects.ignored)
        return render(image, view, key.side, self.fill), seen(objects, view, self.geometry), view

    def part(self, index: int) -> Part:
        """Image `index` as it is stored, and its objects."""
        return self.image(index), self.file.objects(index)

    def image(self, index: int) -> Tensor:
        """Image `index`, uint8 [3, H, W], to be read only: it may be the cache's own memory."""
        if self.cache is None:
            return decode(self.file, index)
        image = self.cache.get(index)
        if image is None:
            image = decode(self.file, index)
            self.cache.put(index, image)
        return image


def _lost_all(parts: list[Part], found: Objects) -> bool:
    """Whether a mosaic has no object left that counts, though one of its images had some."""
    return bool(found.ignored.all()) and not all(objects.ignored.all() for _, objects in parts)


def decode(file: TensorFile, index: int) -> Tensor:
    """Decode image `index` of a tensor file to uint8 RGB [3, H, W], in its stored orientation."""
    try:
        image: Tensor = decode_image(file.encoded(index), ImageReadMode.RGB)
    except RuntimeError as error:
        raise UserError(
            f"{file.path}: image {file.image_ids[index]} does not decode ({error}); "
            "`dvc repro -f preprocess` checks every image"
        ) from None
    return image


def collate(samples: list[LoadedSample]) -> Batch:
    """Stack images and pad objects to the largest number of an image."""
    images, objects, indices = zip(*samples, strict=True)
    num_objects = max(len(o.labels) for o in objects)
    boxes = np.zeros((len(samples), num_objects, 4), np.float32)
    labels = np.zeros((len(samples), num_objects), np.int64)
    ignored = np.zeros((len(samples), num_objects), np.bool_)
    for row, o in enumerate(objects):
        boxes[row, : len(o.labels)] = o.boxes
        labels[row, : len(o.labels)] = o.labels
        ignored[row, : len(o.labels)] = o.ignored
    targets = Targets(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(ignored))
    stacked = torch.from_numpy(np.stack([image.permute(1, 2, 0).numpy() for image in images]))
    return Batch(stacked.permute(0, 3, 1, 2), targets, list(indices))


@lru_cache
def _mean_and_std(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each number of a row of pixels. Kept on the device: to copy them there at every step would stall a
    GPU's queue."""
    return torch.tensor(MEAN).repeat(width).to(device), torch.tensor(STD).repeat(width).to(device)


def normalise(images: Tensor) -> Tensor:
    """0..255 RGB [B, 3, H, W] to ImageNet's mean 0 and deviation 1, float32, channels last."""
    batch_size, _, height, width = images.shape
    mean, std = _mean_and_std(width, images.device)
    # Rows of numbers rather than channels: a CPU's vector units have no use for runs of three.
    rows = images.permute(0, 2, 3, 1).reshape(batch_size, height, width * 3).to(torch.float32, copy=True)
    return rows.sub_(mean).div_(std).view(batch_size, height, width, 3).permute(0, 3, 1, 2)
