"""The parts of the work beside the network whose growth is measured; see benchmarks/growth.py."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness import Step
from benchmarks.scenes import random_detections, random_targets, trained_outputs
from benchmarks.torchvision_ssd import our_model
from ssd.files import write_bytes
from ssd.loading.batches import training_batches
from ssd.loading.tensor_file import TensorFile
from ssd.loss import LossSettings, MultiBoxLoss
from ssd.metrics.bootstrap import bootstrap_coco
from ssd.metrics.coco import evaluate_coco, match_classes
from ssd.models.kmeans_priors import kmeans_levels
from ssd.params import load_params
from ssd.postprocess import PostProcessor, PostProcessSettings
from ssd.prepare.duplicates import find_look_alikes
from ssd.prepare.readers.coco import read_coco
from ssd.prepare.readers.folder_files import read_folder
from ssd.tensor_writer import AnnotatedImage, write_shards

BATCH_SIZE = 8
NUM_DETECTIONS = 100
NUM_RESAMPLES = 100
IMAGE_BYTES = 1000
NUM_SHARDS = 8
MAP_SIDES = (38, 19, 10, 5, 3, 1)


@dataclass(frozen=True)
class Size:
    """A data set. images: number of them; boxes: per image; classes: without background."""

    images: int = 2000
    boxes: int = 5
    classes: int = 20


@dataclass(frozen=True)
class Part:
    """A part of the work. build: makes its step for a size; axes: what it may grow with."""

    build: Callable[[Size, Path], Step]
    axes: tuple[str, ...] = ("images", "boxes", "classes")
    memory: bool = False


def reading_annotations(size: Size, folder: Path) -> Step:
    """COCO JSON to annotations in memory."""
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, size.classes + 1)]
    images = [{"id": n, "file_name": f"{n:07d}.jpg", "height": 480, "width": 640} for n in range(size.images)]
    (folder / "train2017").mkdir()
    for image in images:
        (folder / "train2017" / str(image["file_name"])).touch()
    annotations = [
        {
            "id": n,
            "image_id": n // size.boxes,
            "category_id": n % size.classes + 1,
            "bbox": [10.5, 20.25, 100.0, 50.0],
            "iscrowd": 0,
        }
        for n in range(size.images * size.boxes)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_bytes(folder / "annotations/instances_train2017.json", json.dumps(content).encode())
    del content, annotations, images
    return lambda: read_coco(read_folder(folder))


def looking_for_look_alikes(size: Size, folder: Path) -> Step:
    """Train against val and test, each a twentieth of it."""
    draw = torch.Generator().manual_seed(0)
    hashes = torch.randint(0, 256, (size.images, 16), generator=draw, dtype=torch.uint8).numpy()
    every = [(str(n), row.tobytes()) for n, row in enumerate(hashes)]
    held_out = size.images // 20
    splits = {"train": every, "val": every[:held_out], "test": every[held_out : 2 * held_out]}
    return lambda: find_look_alikes({**splits, "train": every[2 * held_out :]})


def writing_tensors(size: Size, folder: Path) -> Step:
    """All but the images: each has a kilobyte."""
    shards, names = make_shards(size), class_names(size)

    def step() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            write_shards(Path(target) / "train", shards, names)

    return step


def opening_tensors(size: Size, folder: Path) -> Step:
    """What each process does at its start: the heads of all files, with their digests."""
    write_shards(folder / "train", make_shards(size), class_names(size))
    return lambda: TensorFile(folder / "train")


def ordering_an_epoch(size: Size, folder: Path) -> Step:
    """The batches of an epoch, with repeat factors of rare classes."""
    opening_tensors(size, folder)
    file = TensorFile(folder / "train")
    params = load_params().train.model_copy(update={"repeat_threshold": 0.01})
    return lambda: list(training_batches(file, params, 300, 0, 1))


def clustering_priors(size: Size, folder: Path) -> Step:
    """k-means over the boxes of all images."""
    draw = torch.Generator().manual_seed(0)
    sizes = torch.rand(size.images * size.boxes, 2, generator=draw) * 0.5 + 0.01
    return lambda: kmeans_levels(sizes, MAP_SIDES, 30, 0)


def matching_and_loss(size: Size, folder: Path) -> Step:
    """Forward and backward, of a step of 8 images."""
    draw = torch.Generator().manual_seed(0)
    priors, num_classes = our_model("resnet18").priors, size.classes + 1
    targets = random_targets(BATCH_SIZE, num_classes, draw, most=size.boxes)
    loc = torch.randn(BATCH_SIZE, len(priors), 4, generator=draw).requires_grad_()
    logits = torch.randn(BATCH_SIZE, len(priors), num_classes, generator=draw).requires_grad_()
    criterion = MultiBoxLoss(priors, LossSettings())

    def step() -> None:
        losses = criterion(loc, logits, criterion.match(targets))
        torch.autograd.grad(losses.total, [loc, logits])

    return step


def decoding_and_nms(size: Size, folder: Path) -> Step:
    """Of 8 images, with outputs like those of a trained network."""
    draw = torch.Generator().manual_seed(0)
    priors, num_classes = our_model("resnet18").priors, size.classes + 1
    targets = random_targets(BATCH_SIZE, num_classes, draw, most=size.boxes)
    loc, logits = trained_outputs(targets, priors, num_classes, draw)
    postprocessor = PostProcessor(priors, PostProcessSettings())
    return torch.inference_mode()(lambda: postprocessor(loc, logits))


def scoring(size: Size, folder: Path) -> Step:
    """COCO's average precision of a test split of a tenth of the images."""
    found, truth = random_detections(
        size.images // 10, size.classes, NUM_DETECTIONS, torch.Generator().manual_seed(0)
    )
    return lambda: evaluate_coco(found, truth, class_names(size))


def resampling(size: Size, folder: Path) -> Step:
    """A hundred bootstrap resamples of that test split."""
    num_images, names = size.images // 10, class_names(size)
    found, truth = random_detections(
        num_images, size.classes, NUM_DETECTIONS, torch.Generator().manual_seed(0)
    )
    matches = match_classes(found, truth, names)
    return lambda: bootstrap_coco(matches, names, num_images, NUM_RESAMPLES)


def class_names(size: Size) -> list[str]:
    return [str(number) for number in range(size.classes)]


def make_shards(size: Size) -> list[list[AnnotatedImage]]:
    """Of images that share their bytes and have boxes of all classes in turns."""
    content = bytes(IMAGE_BYTES)
    samples = [
        AnnotatedImage(
            f"train2017/{n:012d}.jpg",
            content,
            (480, 640),
            [(10.5, 20.25, 110.5, 70.25)] * size.boxes,
            [(n * size.boxes + k) % size.classes + 1 for k in range(size.boxes)],
            [False] * size.boxes,
            [False] * size.boxes,
        )
        for n in range(size.images)
    ]
    return [samples[number::NUM_SHARDS] for number in range(NUM_SHARDS)]


PARTS: dict[str, Part] = {
    "reading annotations (COCO JSON)": Part(reading_annotations, memory=True),
    "look-alikes of train in val and test": Part(looking_for_look_alikes, ("images",)),
    "writing tensor files, without the images": Part(writing_tensors, ("images", "boxes")),
    "opening tensor files": Part(opening_tensors, ("images", "boxes"), memory=True),
    "order of an epoch, repeat factors": Part(ordering_an_epoch, ("images", "boxes", "classes")),
    "k-means priors": Part(clustering_priors, ("images", "boxes")),
    "matching and loss, batch 8": Part(matching_and_loss, ("boxes", "classes")),
    "decoding and NMS, batch 8": Part(decoding_and_nms, ("classes",)),
    "COCO AP of images / 10": Part(scoring, ("images", "classes")),
    "100 bootstrap resamples of images / 10": Part(resampling, ("images", "classes")),
}
