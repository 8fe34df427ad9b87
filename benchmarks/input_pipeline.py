"""From JPEG bytes to augmented, normalised batches on one core, against torchvision's reference pipeline."""

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from benchmarks.harness import Benchmark, Comparison
from benchmarks.torchvision_ssd import SIDE
from ssd.loading.batch_augment import distort
from ssd.loading.batches import EpochBatches
from ssd.loading.cache import DecodedCache
from ssd.loading.dataset import Batch, DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.params import AugmentParams, load_params
from ssd.prepare.preprocess import preprocess
from ssd.prepare.readers.voc import VocList, read_voc
from ssd.prepare.sources import VOC_CLASSES
from ssd.prepare.splits import make_splits
from ssd.seeding import seeded
from ssd.source.glyphs import GLYPHS
from ssd.source.shapes import draw_scene
from ssd.tensor_writer import AnnotatedImage, write_tensor_file

BATCH_SIZE = 16
NUM_IMAGES = 64
SHAPES_SIDE = 500

STRENGTHS: dict[str, object] = {
    "policy": "ssd",
    "flip": 0.5,
    "zoom_out": 0.5,
    "zoom_max": 4.0,
    "crop": 1.0,
    "photometric": 0.5,
    "brightness": 0.125,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.05,
    "channel_shuffle": 0.0,
    "mosaic": 0.0,
    "mixup": 0.0,
}
"""SSD's augmentation, with the defaults of torchvision's RandomPhotometricDistort."""


@dataclass(frozen=True)
class Images:
    """A tensor file in a temporary folder, which is deleted with this object."""

    folder: tempfile.TemporaryDirectory[str]
    file: TensorFile


def benchmark(
    voc: Path | None = None, num_images: int = NUM_IMAGES, batch_size: int = BATCH_SIZE
) -> Benchmark[Images]:
    """Ours, with and without the cache of decoded images, and torchvision's.

    Args:
        voc: a folder in VOC layout to take the images from; None draws shapes.
    """
    source = "shapes" if voc is None else "VOC"
    what = f"input pipeline, one core, {source}"
    return Benchmark(
        name="input_pipeline" if voc is None else "input_pipeline_voc",
        settings={
            "images": num_images if voc is None else f"trainval of {voc.name}",
            "longer side": SHAPES_SIDE,
            "input side": SIDE,
            "batch": batch_size,
            "augmentation": "flip 0.5, zoom-out 0.5 (up to 4), IoU crop 1, photometric 0.5 each",
            "workers": 0,
        },
        make_inputs=partial(make_images, voc, num_images),
        candidates={
            "ours": lambda images: ours(images.file, batch_size, None),
            "ours_cached": lambda images: ours(images.file, batch_size, filled_cache(images.file)),
            "torchvision": lambda images: torchvisions(images.file, batch_size),
        },
        comparisons=(
            Comparison(f"{what}, decoding each time", "ours", "torchvision", batch_size, min_ratio=5),
            Comparison(f"{what}, `train.cache: ram`", "ours_cached", "torchvision", batch_size, min_ratio=10),
        ),
        runs=25,
        num_threads=1,
    )


def make_images(voc: Path | None, num_images: int) -> Images:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "train.safetensors"
    if voc is None:
        write_tensor_file(path, [shapes_sample(index) for index in range(num_images)], GLYPHS)
    else:
        params = load_params(Path(__file__).parents[1] / "params.yaml")
        changes = {"max_side": 640, "val_fraction": 0.0, "test_fraction": 0.0, "workers": 1}
        settings = params.preprocess.model_copy(update=changes)
        data = params.data.model_copy(update={"folds": 0, "fold": 0})
        listing = make_splits(read_voc({"train": [VocList(voc, "trainval")]}, VOC_CLASSES), data, settings)
        result = preprocess(listing, VOC_CLASSES, settings, Path(folder.name))
        write_tensor_file(path, result.splits["train"].samples, VOC_CLASSES)
    return Images(folder, TensorFile(path))


def shapes_sample(index: int) -> AnnotatedImage:
    """A scene of the embedded data set at the size of VOC's images."""
    image, objects = draw_scene(np.random.default_rng([0, index]), SHAPES_SIDE)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=92)
    return AnnotatedImage(
        id=f"{index}",
        encoded=content.getvalue(),
        size=(image.height, image.width),
        boxes=[item.box for item in objects],
        labels=[GLYPHS.index(item.name) + 1 for item in objects],
        difficult=[item.difficult for item in objects],
        crowd=[False] * len(objects),
    )


def ours(file: TensorFile, batch_size: int, cache: DecodedCache | None) -> Callable[[], Tensor]:
    """The input pipeline of `ssd.training` up to the network: float32 [B, 3, S, S]."""
    augment = augment_params(**STRENGTHS)
    dataset = DetectionDataset(file, SIDE, augment, cache=cache)
    sampler = EpochBatches(range(len(file)), batch_size, SIDE, seed=0)
    loader = make_loader(dataset, sampler, workers=0)

    def batches() -> Iterator[Batch]:
        for sampler.epoch in count():
            yield from loader

    iterator, number = batches(), count()

    def step() -> Tensor:
        batch = next(iterator)
        return distort(batch.images, augment, seeded("colour", next(number)))

    return step


def augment_params(**changes: object) -> AugmentParams:
    """The `augment` section of the repository with these changes."""
    return load_params().augment.model_copy(update=changes)


def filled_cache(file: TensorFile) -> DecodedCache:
    """A cache that contains every image, as after the first epoch."""
    cache = DecodedCache(file)
    dataset = DetectionDataset(file, SIDE, cache=cache)
    for index in range(len(file)):
        dataset.image(index)
    return cache


def torchvisions(file: TensorFile, batch_size: int) -> Callable[[], Tensor]:
    """The "ssd" preset of torchvision's detection references, then the transform inside its SSD.

    Images and objects are in memory beforehand.
    """
    encoded = [file.encoded(index).numpy().tobytes() for index in range(len(file))]
    objects = [file.objects(index) for index in range(len(file))]
    fill: dict[type, tuple[int, ...]] = {Image.Image: (123, 117, 104)}
    augment = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=fill),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(p=0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float, scale=True),
            v2.ConvertBoundingBoxFormat(tv_tensors.BoundingBoxFormat.XYXY),
            v2.SanitizeBoundingBoxes(),
            v2.ToPureTensor(),
        ]
    )
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    resize = GeneralizedRCNNTransform(SIDE, SIDE, mean, std, size_divisible=1, fixed_size=(SIDE, SIDE))

    def load(index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image = Image.open(io.BytesIO(encoded[index])).convert("RGB")
        boxes = tv_tensors.BoundingBoxes(
            objects[index].boxes, format="XYXY", canvas_size=(image.height, image.width)
        )
        sample: tuple[Tensor, dict[str, Tensor]] = augment(
            image, {"boxes": boxes, "labels": objects[index].labels}
        )
        return sample

    def order() -> Iterator[int]:
        while True:
            yield from torch.randperm(len(encoded)).tolist()

    indices = order()

    def step() -> Tensor:
        images, targets = zip(*(load(next(indices)) for _ in range(batch_size)), strict=True)
        batch, _ = resize(list(images), list(targets))
        tensors: Tensor = batch.tensors
        return tensors

    return step
