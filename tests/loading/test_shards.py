"""A split in several tensor files is the split in one: same content, order and batches."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from default_params import default_params

from ssd.errors import UserError
from ssd.files import sha256
from ssd.loading.batches import training_batches
from ssd.loading.dataset import DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.tensor_writer import AnnotatedImage, write_shards


def samples_of(file: TensorFile) -> list[AnnotatedImage]:
    """What was written into a file."""
    found = [file.objects(index) for index in range(len(file))]
    rows = [slice(*file.box_offsets[index : index + 2].tolist()) for index in range(len(file))]
    return [
        AnnotatedImage(
            file.image_ids[index],
            file.encoded(index).numpy().tobytes(),
            tuple(file.sizes[index].tolist()),
            found[index].boxes.tolist(),
            found[index].labels.tolist(),
            file.difficult[rows[index]].tolist(),
            file.crowd[rows[index]].tolist(),
        )
        for index in range(len(file))
    ]


@pytest.fixture
def shards(shapes_file: TensorFile, tmp_path: Path) -> Path:
    """Three files, one of them empty."""
    samples = samples_of(shapes_file)
    write_shards(tmp_path / "train", [samples[:5], [], samples[5:]], shapes_file.class_names)
    return tmp_path / "train"


def test_all_that_is_read_is_the_same(shapes_file: TensorFile, shards: Path) -> None:
    file = TensorFile(shards)
    assert [shard.name for shard in file.shards] == [f"0000{n}-of-00003.safetensors" for n in range(3)]
    assert (file.class_names, file.image_ids) == (shapes_file.class_names, shapes_file.image_ids)
    assert file.images_with_objects() == shapes_file.images_with_objects()
    for name in ("sizes", "boxes", "labels", "difficult", "crowd", "ignored", "box_offsets"):
        assert getattr(file, name).equal(getattr(shapes_file, name)), name
    assert file.normalised_boxes().equal(shapes_file.normalised_boxes())
    for reader in (file, pickle.loads(pickle.dumps(file))):
        for index in range(len(file)):
            assert reader.encoded(index).equal(shapes_file.encoded(index))
            assert reader.objects(index).boxes.equal(shapes_file.objects(index).boxes)


def test_batches_are_the_same_and_their_order_runs_over_all_shards(
    shapes_file: TensorFile, shards: Path
) -> None:
    params = default_params()
    order: list[list[int]] = []
    pixels: list[torch.Tensor] = []
    for file in (shapes_file, TensorFile(shards)):
        sampler = training_batches(file, params.train, 64, 0, 1)
        batches = list(make_loader(DetectionDataset(file, 64, params.augment), sampler, workers=0))
        order.append([index for batch in batches for index in batch.indices])
        pixels.append(torch.cat([batch.images for batch in batches]))
    assert order[0] == order[1] != sorted(order[0])
    assert pixels[0].equal(pixels[1])


def test_a_shard_is_mapped_when_its_first_image_is_read(shards: Path) -> None:
    file = TensorFile(shards)
    last = shards / "00002-of-00003.safetensors"
    last.unlink()
    file.encoded(0)
    with pytest.raises(UserError, match=r"00002-of-00003\.safetensors: its images cannot be read"):
        file.encoded(len(file) - 1)


def test_a_shard_that_is_missing_is_named(shards: Path) -> None:
    (shards / "00001-of-00003.safetensors").unlink()
    with pytest.raises(UserError, match="train: tensor file 00001 is missing beside 00000-of-00003"):
        TensorFile(shards)


def test_shards_of_two_splits_are_refused(shards: Path) -> None:
    shutil.copy(shards / "00000-of-00003.safetensors", shards / "00000-of-00001.safetensors")
    with pytest.raises(UserError, match="train: tensor files of 00001 and of 00003 in one folder"):
        TensorFile(shards)


def test_a_folder_without_a_tensor_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tensor file is in it"):
        TensorFile(tmp_path)


def test_a_shard_of_other_classes_is_refused(shards: Path) -> None:
    write_shards(shards.parent / "other", [[], [], []], ["cat"])
    shutil.copy(shards.parent / "other/00001-of-00003.safetensors", shards)
    with pytest.raises(UserError, match=r"00001-of-00003\.safetensors: its classes are not those of 00000"):
        TensorFile(shards)


def test_the_digest_of_one_shard_is_that_of_the_file_and_of_several_depends_on_each(
    shapes_file: TensorFile, shards: Path, tmp_path: Path
) -> None:
    write_shards(tmp_path / "one", [samples_of(shapes_file)], shapes_file.class_names)
    assert sha256(tmp_path / "one") == sha256(shapes_file.path)
    before = sha256(shards)
    (shards / ".DS_Store").touch()
    assert sha256(shards) == before
    file = shards / "00001-of-00003.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    assert sha256(shards) != before
