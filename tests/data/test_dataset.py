"""From a tensor file to batches."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from ssd.data.augment import Geometry
from ssd.data.dataset import DetectionDataset, EpochBatches, make_loader, normalise
from ssd.data.tensors import Sample, TensorFile, write_tensor_file
from ssd.errors import UserError


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


def test_batches_hold_every_image_once_and_pad_objects(file: TensorFile) -> None:
    loader, _ = make_loader(DetectionDataset(file, 32), 4, 0, shuffle=False)
    first, second = loader
    assert first.indices + second.indices == list(range(7))
    assert first.images.shape == (4, 3, 32, 32)
    assert first.images.dtype == torch.uint8
    assert (first.targets.labels > 0).sum(1).tolist() == [0, 1, 2, 3]
    assert first.targets.ignored.sum(1).tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(first.targets.boxes[1, 0], torch.tensor([10 / 81, 10 / 60, 20 / 81, 30 / 60]))


def test_samples_do_not_depend_on_the_workers(file: TensorFile) -> None:
    geometry = Geometry(0.5, 0.5, 3, 0.8)
    epochs = []
    for workers in (0, 2):
        loader, sampler = make_loader(DetectionDataset(file, 32, geometry, seed=5), 3, workers, shuffle=True)
        for epoch in (0, 1):
            sampler.epoch = epoch
            epochs.append([(b.indices, b.images, b.targets.boxes) for b in loader])
    for one, other in ((epochs[0], epochs[2]), (epochs[1], epochs[3])):
        for (indices, images, boxes), (same_indices, same_images, same_boxes) in zip(one, other, strict=True):
            assert indices == same_indices
            assert torch.equal(images, same_images)
            assert torch.equal(boxes, same_boxes)
    assert [b[0] for b in epochs[0]] != [b[0] for b in epochs[1]], "every epoch has an order of its own"


def test_a_trailing_batch_of_one_is_left_out_of_training_only() -> None:
    assert [len(batch) for batch in EpochBatches(7, 3, seed=0)] == [3, 3]
    assert [len(batch) for batch in EpochBatches(8, 3, seed=0)] == [3, 3, 2]
    assert [len(batch) for batch in EpochBatches(7, 3, seed=None)] == [3, 3, 1]
    assert len(list(EpochBatches(0, 3, seed=None))) == 0


def test_an_image_that_does_not_decode_is_named(tmp_path: Path) -> None:
    broken = Sample("broken", b"\xff\xd8 no jpeg", (10, 10), [], [], [], [])
    write_tensor_file(tmp_path / "x.safetensors", [broken], ["cat"])
    with pytest.raises(UserError, match="image broken does not decode"):
        DetectionDataset(TensorFile(tmp_path / "x.safetensors"), 32)[0, 0]


def test_an_error_in_a_worker_process_is_still_one_line(tmp_path: Path) -> None:
    broken = Sample("broken", b"\xff\xd8 no jpeg", (10, 10), [], [], [], [])
    write_tensor_file(tmp_path / "x.safetensors", [broken], ["cat"])
    loader, _ = make_loader(DetectionDataset(TensorFile(tmp_path / "x.safetensors"), 32), 1, 1, shuffle=False)
    with pytest.raises(UserError, match="image broken does not decode") as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value)


def test_normalised_images_have_imagenet_s_mean_at_zero() -> None:
    images = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    out = normalise(images)
    torch.testing.assert_close(out, torch.zeros_like(out), atol=1e-5, rtol=0)
    assert out.is_contiguous(memory_format=torch.channels_last)
