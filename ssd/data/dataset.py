"""From a tensor file to batches: decode, one resample, padded targets. Repeatable whatever the workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.io import ImageReadMode, decode_image

from ssd.data.augment import Geometry, sample_view, visible_objects
from ssd.data.geometry import map_boxes, render, whole
from ssd.data.seeding import seeded
from ssd.data.tensors import Objects, TensorFile
from ssd.errors import UserError
from ssd.matching import Targets

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""ImageNet's RGB mean and deviation on the 0..255 scale, what torchvision's weights were trained with."""


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


LoadedSample = tuple[Tensor, Objects, int]
"""An image at input size, its objects, its row in the tensor file."""


class DetectionDataset(Dataset[LoadedSample]):
    """Images of a tensor file at the network's input size, with their objects in shares of the view.

    Args:
        file: the split.
        side: input size, pixels.
        geometry: augmentation; None stretches the whole image.
        seed: with the epoch and the index it decides all randomness of a sample, so that neither the
            number of workers nor their order matters.
    """

    def __init__(self, file: TensorFile, side: int, geometry: Geometry | None = None, seed: int = 0) -> None:
        self.file = file
        self.side = side
        self.geometry = geometry
        self.seed = seed
        self.fill = torch.tensor(MEAN).round().to(torch.uint8)

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, key: tuple[int, int]) -> LoadedSample:
        """The sample of (epoch, index): uint8 [3, S, S] image, objects, index."""
        epoch, index = key
        image = decode(self.file, index)
        objects = self.file.objects(index)
        height, width = image.shape[1:]
        view = whole(height, width)
        if self.geometry is not None:
            generator = seeded("view", self.seed, epoch, index)
            view = sample_view(height, width, objects.boxes, self.geometry, generator)
        kept = visible_objects(objects.boxes, view)
        boxes = map_boxes(objects.boxes[kept], view)
        image = render(image, view, self.side, self.fill)
        return image, Objects(boxes, objects.labels[kept], objects.ignored[kept]), index


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
    boxes = torch.zeros(len(samples), num_objects, 4)
    labels = torch.zeros(len(samples), num_objects, dtype=torch.int64)
    ignored = torch.zeros(len(samples), num_objects, dtype=torch.bool)
    for row, o in enumerate(objects):
        boxes[row, : len(o.labels)] = o.boxes
        labels[row, : len(o.labels)] = o.labels
        ignored[row, : len(o.labels)] = o.ignored
    return Batch(torch.stack(images), Targets(boxes, labels, ignored), list(indices))


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), shuffled by seed and epoch alone.

    A trailing batch of one image is left out when shuffling: batch norm cannot learn from it on a 1x1 map.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int | None) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        num_batches, rest = divmod(self.num_images, self.batch_size)
        return num_batches + (rest > 1 or (rest == 1 and self.seed is None))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = list(range(self.num_images))
        if self.seed is not None:
            order = torch.randperm(self.num_images, generator=seeded("order", self.seed, self.epoch)).tolist()
        for batch in range(len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, index) for index in rows]


def make_loader(
    dataset: DetectionDataset, batch_size: int, workers: int, *, shuffle: bool, pin_memory: bool = False
) -> tuple[DataLoader[LoadedSample], EpochBatches]:
    """A loader that gives a `Batch` at a time, and the sampler; set its `epoch` before each pass."""
    sampler = EpochBatches(len(dataset), batch_size, dataset.seed if shuffle else None)
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=shuffle and workers > 0,
    )
    return loader, sampler


@lru_cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept on the device: copying them there at every step would stall a GPU's queue."""
    return torch.tensor(MEAN, device=device).view(3, 1, 1), torch.tensor(STD, device=device).view(3, 1, 1)


def normalise(images: Tensor) -> Tensor:
    """0..255 RGB [B, 3, H, W] to ImageNet's mean 0 and deviation 1, float32, channels last."""
    mean, std = _mean_and_std(images.device)
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)
