"""From a tensor file to batches."""

import io
from itertools import combinations
from pathlib import Path

import pytest
import torch
from default_params import augment_params
from PIL import Image

from ssd.errors import UserError
from ssd.loading.batches import EpochBatches, SampleKey
from ssd.loading.dataset import Batch, DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.tensor_writer import AnnotatedImage, write_tensor_file

ALL = augment_params(flip=0.5, zoom_out=0.5, zoom_max=3.0, crop=0.8, mosaic=0.5)


def encoded(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> TensorFile:
    """Seven images; image i has i objects."""
    samples = [
        AnnotatedImage(
            id=f"image{i}",
            encoded=encoded(80 + i, 60, (i * 30, 0, 0)),
            size=(60, 80 + i),
            boxes=[(10.0, 10.0, 20.0 + j, 30.0) for j in range(i)],
            labels=[1 + j % 2 for j in range(i)],
            difficult=[j == 1 for j in range(i)],
            crowd=[False] * i,
        )
        for i in range(7)
    ]
    write_tensor_file(tmp_path / "train.safetensors", samples, ["cat", "dog"])
    return TensorFile(tmp_path / "train.safetensors")


def load(file: TensorFile, batch_size: int, workers: int, *epochs: int) -> list[list[Batch]]:
    """The batches of training epochs, with all augmentation, or of an evaluation if there are none."""
    augment = ALL if epochs else None
    sampler = EpochBatches(range(len(file)), batch_size, 32, seed=5 if epochs else None)
    loader = make_loader(DetectionDataset(file, 32, augment, seed=5), sampler, workers)
    if not epochs:
        return [list(loader)]
    return [list(loader) for sampler.epoch in epochs]


def same(one: list[Batch], other: list[Batch]) -> bool:
    return all(
        a.indices == b.indices
        and torch.equal(a.images, b.images)
        and torch.equal(a.targets.boxes, b.targets.boxes)
        and torch.equal(a.targets.labels, b.targets.labels)
        for a, b in zip(one, other, strict=True)
    )


def test_batches_hold_every_image_once_and_pad_objects(file: TensorFile) -> None:
    [(first, second)] = load(file, 4, 0)
    assert first.indices + second.indices == list(range(7))
    assert first.images.shape == (4, 3, 32, 32)
    assert first.images.dtype == torch.uint8
    assert (first.targets.labels > 0).sum(1).tolist() == [0, 1, 2, 3]
    assert first.targets.ignored.sum(1).tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(first.targets.boxes[1, 0], torch.tensor([10 / 81, 10 / 60, 20 / 81, 30 / 60]))


def test_samples_do_not_depend_on_the_workers(file: TensorFile) -> None:
    here, there = load(file, 3, 0, 0, 1), load(file, 3, 2, 0, 1)
    assert same(here[0], there[0]) and same(here[1], there[1])
    assert not same(here[0], here[1]), "every epoch has an order of its own"


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_a_batch_lie_pixel_by_pixel(file: TensorFile, workers: int) -> None:
    [(batch, *_)] = load(file, 3, workers, 0)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_every_showing_of_an_image_has_a_view_of_its_own(file: TensorFile) -> None:
    dataset = DetectionDataset(file, 32, augment_params(flip=0.5, zoom_out=1.0, zoom_max=3.0, crop=0.8))
    keys = [SampleKey(epoch, 4, 32, showing) for epoch in (0, 1) for showing in (0, 1)]
    pictures = [dataset[key].image for key in [*keys, *keys]]
    assert all(torch.equal(*pair) for pair in zip(pictures[:4], pictures[4:], strict=True))
    assert not any(torch.equal(a, b) for a, b in combinations(pictures[:4], 2))


@pytest.fixture
def specks(tmp_path: Path) -> TensorFile:
    """An image of 320 x 320 with objects of 9, 11 and 100 pixels, and one of 2 x 200."""
    boxes = [(5.0, 5.0, 14.0, 14.0), (20.0, 20, 31, 31), (100.0, 100, 200, 200), (300.0, 50, 302, 250)]
    flags = [False] * 4
    image = AnnotatedImage("a", encoded(320, 320, (9, 9, 9)), (320, 320), boxes, [1, 2, 3, 4], flags, flags)
    write_tensor_file(tmp_path / "train.safetensors", [image], ["a", "b", "c", "d"])
    return TensorFile(tmp_path / "train.safetensors")


def test_objects_of_less_than_a_pixel_of_the_input_are_dropped_in_training(specks: TensorFile) -> None:
    """By the size of the sample; thin ones that cover a pixel stay. Evaluation keeps all."""
    for policy, side, labels in (
        ("light", 32, [2, 3, 4]),
        ("light", 64, [1, 2, 3, 4]),
        ("none", 32, [1, 2, 3, 4]),
    ):
        dataset = DetectionDataset(specks, 32, augment_params(policy))
        assert dataset[SampleKey(0, 0, side)].target.labels.tolist() == labels
    assert DetectionDataset(specks, 32)[SampleKey(0, 0, 32)].target.labels.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("changes", [{"zoom_out": 1.0}, {"crop": 1.0}, {"mosaic": 1.0, "crop": 1.0}])
def test_no_sample_has_an_object_of_less_than_a_pixel(specks: TensorFile, changes: dict[str, float]) -> None:
    dataset, num_objects = DetectionDataset(specks, 48, augment_params(**changes)), 0
    for epoch in range(40):
        boxes = dataset[SampleKey(epoch, 0, 48)].target.boxes * 48
        assert ((boxes[:, 2:] - boxes[:, :2]).prod(1) >= 1 - 1e-3).all()
        num_objects += len(boxes)
    assert num_objects > 0


def test_the_key_decides_the_size(file: TensorFile) -> None:
    dataset = DetectionDataset(file, 32)
    small, large = dataset[SampleKey(0, 3, 32)], dataset[SampleKey(0, 3, 48)]
    assert (small.image.shape, large.image.shape) == ((3, 32, 32), (3, 48, 48))
    assert torch.equal(small.target.boxes, large.target.boxes)


def test_an_image_that_does_not_decode_is_named(tmp_path: Path) -> None:
    broken = AnnotatedImage("broken", b"\xff\xd8 no jpeg", (10, 10), [], [], [], [])
    write_tensor_file(tmp_path / "x.safetensors", [broken], ["cat"])
    with pytest.raises(UserError, match="image broken does not decode"):
        DetectionDataset(TensorFile(tmp_path / "x.safetensors"), 32)[SampleKey(0, 0, 32)]


def test_an_error_in_a_worker_process_is_still_one_line(tmp_path: Path) -> None:
    broken = AnnotatedImage("broken", b"\xff\xd8 no jpeg", (10, 10), [], [], [], [])
    write_tensor_file(tmp_path / "x.safetensors", [broken], ["cat"])
    with pytest.raises(UserError, match="image broken does not decode") as caught:
        load(TensorFile(tmp_path / "x.safetensors"), 1, 1)
    assert "\n" not in str(caught.value)
