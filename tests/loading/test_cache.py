"""Decoded images in shared memory: the pixels of decoding, from any process, and never more than fits."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from default_params import augment_params
from PIL import Image

from ssd.errors import UserError
from ssd.loading.batches import EpochBatches
from ssd.loading.cache import WRITING, DecodedCache, free_memory
from ssd.loading.dataset import Batch, DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.tensor_writer import AnnotatedImage, write_tensor_file

NUM_IMAGES = 9


@pytest.fixture
def file(tmp_path: Path) -> TensorFile:
    """Noise, every image of a size of its own, JPEG and PNG in turn."""
    samples = []
    for index in range(NUM_IMAGES):
        height, width = 30 + index, 50 - 2 * index
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG" if index % 2 else "PNG")
        samples.append(
            AnnotatedImage(
                f"{index}", content.getvalue(), (height, width), [(2, 2, 20, 20)], [1], [False], [False]
            )
        )
    write_tensor_file(tmp_path / "train.safetensors", samples, ["noise"])
    return TensorFile(tmp_path / "train.safetensors")


def epochs(file: TensorFile, cache: DecodedCache | None, workers: int) -> list[list[Batch]]:
    augment = augment_params(flip=0.5, zoom_out=0.5, zoom_max=2.0, crop=0.5, mosaic=0.5)
    dataset = DetectionDataset(file, 32, augment, seed=1, cache=cache)
    sampler = EpochBatches(range(len(file)), 3, 32, seed=1)
    loader = make_loader(dataset, sampler, workers)
    return [list(loader) for sampler.epoch in range(2)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_the_cache_and_without(file: TensorFile, workers: int) -> None:
    cache = DecodedCache(file)
    plain, cached = epochs(file, None, 0), epochs(file, cache, workers)
    for epoch, cached_epoch in zip(plain, cached, strict=True):
        for batch, cached_batch in zip(epoch, cached_epoch, strict=True):
            assert batch.indices == cached_batch.indices
            assert torch.equal(batch.images, cached_batch.images)
            assert torch.equal(batch.targets.boxes, cached_batch.targets.boxes)


def test_what_worker_processes_decode_is_there_for_this_one(file: TensorFile) -> None:
    cache = DecodedCache(file)
    assert all(cache.get(index) is None for index in range(NUM_IMAGES))
    epochs(file, cache, workers=2)
    for index in range(NUM_IMAGES):
        cached = cache.get(index)
        assert cached is not None
        assert torch.equal(cached, file.image(index))


def test_an_image_is_decoded_once(file: TensorFile, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = DetectionDataset(file, 32, cache=DecodedCache(file))
    decoded: list[int] = []

    decode = TensorFile.image

    def counting(file: TensorFile, index: int) -> torch.Tensor:
        decoded.append(index)
        return decode(file, index)

    monkeypatch.setattr(TensorFile, "image", counting)
    for index in [3, 1, 3, 3, 1]:
        assert torch.equal(dataset.image(index), decode(file, index))
    assert decoded == [3, 1]


def test_an_image_that_is_being_written_is_neither_read_nor_written(file: TensorFile) -> None:
    cache = DecodedCache(file)
    cache._states[4] = WRITING
    cache.put(4, torch.full((3, 34, 42), 7, dtype=torch.uint8))
    assert cache.get(4) is None
    assert not (cache._pixels == 7).any()


def test_a_cache_that_does_not_fit_is_an_error(file: TensorFile) -> None:
    size = DecodedCache(file).num_bytes
    assert size == sum(3 * (30 + i) * (50 - 2 * i) for i in range(NUM_IMAGES))
    with pytest.raises(UserError, match=r"train.cache: the images of .*train.safetensors take"):
        DecodedCache(file, num_processes=2 * free_memory() // size)


def test_an_empty_split_has_an_empty_cache(tmp_path: Path) -> None:
    write_tensor_file(tmp_path / "val.safetensors", [], ["noise"])
    assert DecodedCache(TensorFile(tmp_path / "val.safetensors")).num_bytes == 0


def machine(root: Path, available: int, cgroup: str, **files: str) -> Path:
    """A /proc and /sys; names of files have __ for /, values are their content."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: 99999 kB\nMemAvailable:   {available} kB\nHugePages_Total: 0\n"
    )
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_free_memory_is_the_machine_s_without_limits(tmp_path: Path) -> None:
    assert free_memory(machine(tmp_path, 1000, "0::/\n")) == 1000 * 1024


def test_free_memory_is_the_container_s_where_it_has_less(tmp_path: Path) -> None:
    """Version 2, a limit on the outer of two groups; cached files of 1000 bytes can be given back."""
    root = machine(
        tmp_path,
        1000,
        "0::/outer/inner\n",
        outer__inner__memory_dot_max="max\n",
        outer__memory_dot_max="50000\n",
        outer__memory_dot_current="21000\n",
        outer__memory_dot_stat="anon 20000\ninactive_file 1000\n",
    )
    assert free_memory(root) == 50000 - 21000 + 1000


def test_free_memory_knows_control_groups_of_version_1(tmp_path: Path) -> None:
    """Inside a container, where the path of the group is the host's."""
    root = machine(
        tmp_path,
        1000,
        "3:cpuset:/docker/ab12\n4:memory,hugetlb:/docker/ab12\n0::/\n",
        memory__memory_dot_limit_in_bytes="50000\n",
        memory__memory_dot_usage_in_bytes="60000\n",
        memory__memory_dot_stat="cache 0\ntotal_inactive_file 15000\n",
    )
    assert free_memory(root) == 5000


def test_a_system_that_does_not_tell_its_memory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.cache: ram needs Linux"):
        free_memory(tmp_path)
