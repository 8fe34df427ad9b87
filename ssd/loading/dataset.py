"""Dataset of a tensor file: decode, resample once, pad targets; reproducible with any number of workers."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssd.loading.augment import objects_in_view, sample_view
from ssd.loading.cache import DecodedCache
from ssd.loading.mosaic import Part, mosaic
from ssd.loading.tensor_file import TensorFile
from ssd.loading.view import View, full_view, render
from ssd.params import AugmentParams
from ssd.seeding import seeded
from ssd.structures import MEAN, Target, Targets


class SampleKey(NamedTuple):
    """What a sample depends on, besides the seed.

    side: input size, pixels; showing: which repetition of the image in the epoch, from 0.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # the name hides tuple's method, which no key needs
    side: int
    showing: int = 0


@dataclass(frozen=True)
class Sample:
    """One network input with its ground truth.

    image: uint8 [3, S, S]; target: its objects; index: row of the tensor file; view: the part of the stored
    image that it shows, None for a mosaic.
    """

    image: Tensor
    target: Target
    index: int
    view: View | None


@dataclass(frozen=True)
class Batch:
    """A batch as the training and evaluation loops get it.

    images: uint8 [B, 3, S, S], channels last; targets: padded; indices: rows of the tensor file, for names in
    messages and for scoring in pixels of the stored image.
    """

    images: Tensor
    targets: Targets
    indices: list[int]

    def pin_memory(self) -> "Batch":
        """Called by the DataLoader, so that copies to a GPU are asynchronous."""
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), self.indices)


class DetectionDataset(Dataset[Sample]):
    """Images of a tensor file at the network's input size, with their targets.

    Args:
        file: the split.
        side: default input size, pixels.
        augment: the `augment` section; None stretches the whole image to the input.
        seed: with the key it determines all randomness of a sample, so that neither the number of data
            loading workers nor their order matters.
        cache: keeps decoded images; None decodes each time.
    """

    def __init__(
        self,
        file: TensorFile,
        side: int,
        augment: AugmentParams | None = None,
        seed: int = 0,
        cache: DecodedCache | None = None,
    ) -> None:
        self.file = file
        self.side = side
        self.augment = augment
        self.seed = seed
        self.cache = cache
        self.fill = torch.tensor(MEAN).round().to(torch.uint8)

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, key: SampleKey) -> Sample:
        """The sample of a key.

        Objects that augmentation shrinks until their box covers less than one pixel of the input are dropped:
        nothing of them is left to see. Without augmentation, as in evaluation, all are kept.
        """
        image, objects = self.part(key.index)
        height, width = image.shape[1:]
        view = full_view(height, width)
        if self.augment is not None and self.augment.policy != "none":
            generator = seeded("view", self.seed, key.epoch, key.index, key.showing)
            if torch.rand((), generator=generator) < self.augment.mosaic:
                others = torch.randint(len(self), (3,), generator=generator).tolist()
                parts = [(image, objects), *map(self.part, others)]
                canvas, target = mosaic(parts, key.side, self.augment, generator)
                target = _drop_subpixel(target, key.side)
                if self.augment.policy != "object_crop" or not _lost_all(parts, target):
                    return Sample(canvas, target, key.index, None)
            view = sample_view(height, width, objects, self.augment, generator)
        target = objects_in_view(objects, view, self.augment)
        if self.augment is not None and self.augment.policy != "none":
            target = _drop_subpixel(target, key.side)
        return Sample(render(image, view, key.side, self.fill), target, key.index, view)

    def part(self, index: int) -> Part:
        """Image `index` as it is stored, and its objects."""
        return self.image(index), self.file.objects(index)

    def image(self, index: int) -> Tensor:
        """Image `index`, uint8 [3, H, W], to be read only: it may be the cache's own memory."""
        if self.cache is None:
            return self.file.image(index)
        image = self.cache.get(index)
        if image is None:
            image = self.file.image(index)
            self.cache.put(index, image)
        return image


def _lost_all(parts: list[Part], target: Target) -> bool:
    """Whether a mosaic has only ignored objects or none, though one of its images had others."""
    return bool(target.ignored.all()) and not all(objects.ignored.all() for _, objects in parts)


def _drop_subpixel(target: Target, side: int) -> Target:
    """A target without the boxes that cover less than one pixel, by area, of an input of `side` pixels."""
    x1, y1, x2, y2 = target.boxes.numpy().T
    kept = torch.from_numpy((x2 - x1) * (y2 - y1) * side**2 >= 1)
    if kept.all():
        return target
    return Target(target.boxes[kept], target.labels[kept], target.ignored[kept])


def collate(samples: list[Sample]) -> Batch:
    """Stack images and pad targets."""
    # Stacked as [B, S, S, 3], the memory layout of the images (channels last).
    images = np.stack([sample.image.permute(1, 2, 0).numpy() for sample in samples])
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        Targets.pad([sample.target for sample in samples]),
        [sample.index for sample in samples],
    )
