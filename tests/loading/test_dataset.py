"""From a tensor file to batches."""

import io
from itertools import combinations
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssd.errors import UserError
from ssd.loading.augment import Geometry
from ssd.loading.batches import EpochBatches, SampleKey, make_loader
from ssd.loading.dataset import MEAN, STD, Batch, DetectionDataset, normalise
from ssd.loading.tensor_file import Sample, TensorFile, write_tensor_file


def encoded(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> TensorFile:
    """Seven images; image i has i objects."""
    samples = [
        Sample(
            id=f"image{i}",
            image=encoded(80 + i, 60, (i * 30, 0, 0)),
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
    geometry = Geometry(0.5, 0.5, 3, 0.8, 0.5) if epochs else None
    sampler = EpochBatches(len(file), batch_size, 32, seed=5 if epochs else None)
    loader = make_loader(DetectionDataset(file, 32, geometry, seed=5), sampler, workers)
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
    dataset = DetectionDataset(file, 32, Geometry(0.5, 1, 3, 0.8))
    keys = [SampleKey(epoch, 4, 32, showing) for epoch in (0, 1) for showing in (0, 1)]
    pictures = [dataset[key][0] for key in [*keys, *keys]]
    assert all(torch.equal(*pair) for pair in zip(pictures[:4], pictures[4:], strict=True))
    assert not any(torch.equal(a, b) for a, b in combinations(pictures[:4], 2))


def test_the_key_decides_the_size(file: TensorFile) -> None:
    dataset = DetectionDataset(file, 32)
    small, large = dataset[SampleKey(0, 3, 32)], dataset[SampleKey(0, 3, 48)]
    assert (small[0].shape, large[0].shape) == ((3, 32, 32), (3, 48, 48))
    assert torch.equal(small[1].boxes, large[1].boxes)


def test_an_image_that_does_not_decode_is_named(tmp_path: Path) -> None:
    broken = Sample("broken", b"\xff\xd8 no jpeg", (10, 10), [], [], [], [])
    write_tensor_file(tmp_path / "x.safetensors", [broken], ["cat"])
    with pytest.raises(UserError, match="image broken does not decode"):
        DetectionDataset(TensorFile(tmp_path / "x.safetensors"), 32)[SampleKey(0, 0, 32)]


def test_an_error_in_a_worker_process_is_still_one_line(tmp_path: Path) -> None:
    broken = Sample("broken", b"\xff\xd8 no jpeg", (10, 10), [], [], [], [])
    write_tensor_file(tmp_path / "x.safetensors", [broken], ["cat"])
    with pytest.raises(UserError, match="image broken does not decode") as caught:
        load(TensorFile(tmp_path / "x.safetensors"), 1, 1)
    assert "\n" not in str(caught.value)


def test_normalised_images_have_imagenet_s_mean_at_zero() -> None:
    images = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    out = normalise(images)
    torch.testing.assert_close(out, torch.zeros_like(out), atol=1e-5, rtol=0)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_normalising_leaves_the_images_that_came_in() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7)).float().contiguous(memory_format=torch.channels_last)
    before = images.clone()
    expected = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.equal(normalise(images), expected)
    assert torch.equal(images, before)
