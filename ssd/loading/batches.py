"""Batch sampling: the images of each batch, their process and input size, by seed and epoch alone."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from ssd.errors import UserError
from ssd.loading.dataset import SampleKey
from ssd.loading.tensor_file import TensorFile
from ssd.params import TrainParams
from ssd.seeding import seeded


class EpochBatches(Sampler[list[SampleKey]]):
    """Batch sampler of one process: yields lists of sample keys.

    Training (with a seed): every process shuffles in the same way, forms the same global batches and takes
    every world_size-th row of each, so that together they train on the batches of a single process. A last
    batch with fewer than two images per process is dropped: batch norm has no variance over one image on a
    1x1 feature map.

    Evaluation (without a seed): every image once over all processes, in the given order.

    Args:
        images: rows of the tensor file, each once.
        batch_size: images per batch over all processes.
        side: input size, pixels.
        seed: of the order; None for evaluation.
        rank, world_size: this process, and the number of processes.
        weights: float [len(images)], relative frequency of each image (see `repeat_factors`); None samples
            each image once per epoch. Training only.

    Attributes:
        epoch: to yield next; set it before each pass.
        start: first batch of the epoch to yield, to resume a training within an epoch.
        side_of: (epoch, batch) to input size in pixels; None keeps `side`.

    Raises:
        UserError: a training batch has fewer than two images per process.
    """

    def __init__(
        self,
        images: Sequence[int],
        batch_size: int,
        side: int,
        *,
        seed: int | None,
        rank: int = 0,
        world_size: int = 1,
        weights: Tensor | None = None,
    ) -> None:
        if seed is not None and batch_size < 2 * world_size:
            raise UserError(
                f"found {batch_size} over {world_size} processes; "
                f"allowed: from {2 * world_size}, two per process",
                key="train.batch_size",
            )
        self.images, self.num_images = images, len(images)
        self.batch_size, self.side = batch_size, side
        self.seed, self.rank, self.world_size, self.weights = seed, rank, world_size, weights
        self.epoch = 0
        self.start = 0
        self.side_of: Callable[[int, int], int] | None = None

    @property
    def num_used(self) -> int:
        """Images of one epoch that are used, over all processes."""
        rest = self.num_images % self.batch_size
        too_few = self.seed is not None and rest // self.world_size < 2
        return self.num_images - rest if too_few else self.num_images

    def __len__(self) -> int:
        """Batches of a whole epoch on this process, whatever `start` is."""
        if self.seed is not None:
            return -(-self.num_used // self.batch_size)
        return -(-len(self._own_images()) // self._own_batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        batches = self._training_batches() if self.seed is not None else self._evaluation_batches()
        for batch in range(self.start, len(batches)):
            side = self.side if self.side_of is None else self.side_of(self.epoch, batch)
            yield [SampleKey(self.epoch, index, side, showing) for index, showing in batches[batch]]

    def _training_batches(self) -> list[list[tuple[int, int]]]:
        assert self.seed is not None
        generator = seeded("order", self.seed, self.epoch)
        counts = torch.ones(self.num_images, dtype=torch.int64)
        if self.weights is not None:
            counts = _systematic_counts(self.weights, generator)
        rows = torch.repeat_interleave(counts)
        showings = torch.arange(self.num_images) - (counts.cumsum(0) - counts)[rows]
        order = torch.randperm(self.num_images, generator=generator)[: self.num_used]
        drawn = [
            (self.images[row], showing)
            for row, showing in zip(rows[order].tolist(), showings[order].tolist(), strict=True)
        ]
        batches = (drawn[first : first + self.batch_size] for first in range(0, len(drawn), self.batch_size))
        return [batch[self.rank :: self.world_size] for batch in batches]

    def _evaluation_batches(self) -> list[list[tuple[int, int]]]:
        own, size = self._own_images(), self._own_batch_size
        return [[(image, 0) for image in own[first : first + size]] for first in range(0, len(own), size)]

    def _own_images(self) -> Sequence[int]:
        return self.images[self.rank :: self.world_size]

    @property
    def _own_batch_size(self) -> int:
        return max(self.batch_size // self.world_size, 1)


def repeat_factors(labels: Sequence[Tensor], threshold: float) -> Tensor:
    """Repeat factor sampling: oversamples images with rare classes (Gupta et al., LVIS, CVPR 2019).

    Appendix B.2: with f_c the fraction of images that contain class c, the class has the repeat factor
    max(1, sqrt(threshold / f_c)) and an image the largest factor of its classes.

    Args:
        labels: int64 [M] of the objects of each image.
        threshold: fraction of images; images of a class in fewer of them are repeated.

    Returns:
        float32 [len(labels)], from 1; 1 for images without objects.
    """
    classes = [set(image.tolist()) for image in labels]
    num_images: dict[int, int] = {}
    for label in (label for image in classes for label in image):
        num_images[label] = num_images.get(label, 0) + 1
    factors = {label: max(1.0, (threshold * len(labels) / n) ** 0.5) for label, n in num_images.items()}
    return torch.tensor([max((factors[label] for label in image), default=1.0) for image in classes])


def _systematic_counts(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic sampling: draws per row, int64 [N] of sum N, each the floor or ceil of its expectation."""
    expected = weights.double().cumsum(0)
    expected = expected * (len(weights) / expected[-1:])
    # Farther from 0 and 1 than any rounding error, so that equal weights draw every row once.
    offset = (torch.randint(2**16, (1,), generator=generator) + 0.5) / 2**16
    return (expected + offset).floor().long().diff(prepend=torch.zeros(1, dtype=torch.int64))


def training_batches(
    file: TensorFile, params: TrainParams, side: int, rank: int, world_size: int
) -> EpochBatches:
    """The sampler of training batches according to the `train` section.

    With `skip_empty`, images without an object that is not ignored are in no batch, and repeat factors are
    those of the others alone. (A mosaic still takes its three other images from the whole file.)

    Raises:
        UserError: there are fewer than two images per process.
    """
    images: Sequence[int] = file.images_with_objects() if params.skip_empty else range(len(file))
    weights: Tensor | None = None
    if params.repeat_threshold > 0:
        labels = [file.objects(index).labels for index in images]
        weights = repeat_factors(labels, params.repeat_threshold)
    batches = EpochBatches(
        images,
        params.batch_size,
        side,
        seed=params.seed,
        rank=rank,
        world_size=world_size,
        weights=weights,
    )
    if len(batches) == 0:
        what = f"{len(images)} image(s) to train on"
        if params.skip_empty:
            what = f"{what} of {len(file)}: train.skip_empty leaves out those without an object to learn from"
        raise UserError(f"{file.path}: {what}; at least {2 * world_size} are needed")
    return batches
