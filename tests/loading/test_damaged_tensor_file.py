"""Damaged tensor files: whatever the damage, a reader gets what was written or one clear line."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ssd.errors import UserError
from ssd.loading import tensor_file, tensor_head
from ssd.loading.tensor_file import TensorFile
from ssd.tensor_writer import AnnotatedImage, _head, write_tensor_file

Content = list[object]


def samples(seed: int) -> list[AnnotatedImage]:
    """Three images with objects, one without, one without even a byte."""
    draw = random.Random(seed)
    images = [
        AnnotatedImage(
            f"{seed}/{index}",
            draw.randbytes(40),
            (20 + index, 30),
            [(index, 2.5, 9, 9)] * index,
            [1 + index % 2] * index,
            [index == 2] * index,
            [False] * index,
        )
        for index in range(4)
    ]
    return [*images, AnnotatedImage(f"{seed}/empty", b"", (1, 2), [], [], [], [])]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensor_file(tmp_path / "train.safetensors", samples(0), ["cat", "dog"])
    return tmp_path / "train.safetensors"


def read(path: Path) -> Content:
    """All that can be read from a file."""
    file = TensorFile(path)
    tensors = (
        file.sizes,
        file.boxes,
        file.labels,
        file.difficult,
        file.crowd,
        file.box_offsets,
    )
    images = [file.encoded(index).tolist() for index in range(len(file))]
    return [file.class_names, file.image_ids, *(tensor.tolist() for tensor in tensors), images]


def refused(path: Path) -> bool:
    """Whether a file is refused, in one line that names it, and as one that preprocess can make again."""
    try:
        read(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
        assert error.path == path
        return True
    return False


def test_every_flipped_bit_is_found(path: Path) -> None:
    """One bit of each byte, whatever is written there: lengths, header, tensors, images."""
    content = path.read_bytes()
    assert not refused(path)
    for place in range(len(content)):
        flipped = bytes([content[place] ^ 1 << place % 8])
        path.write_bytes(content[:place] + flipped + content[place + 1 :])
        assert refused(path), place


def test_every_cut_is_found(path: Path) -> None:
    content = path.read_bytes()
    for length in range(0, len(content), 5):
        path.write_bytes(content[:length])
        assert refused(path), length


def cleared(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """A block of zeros, as a disk leaves that lost one."""
    start = draw.randrange(len(content))
    end = min(start + draw.randrange(1, 600), len(content))
    return content[:start] + bytes(end - start) + content[end:]


def spliced(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """A block of another file of the same format."""
    start = draw.randrange(len(content))
    end = start + draw.randrange(1, 600)
    return content[:start] + other[start:end] + content[end:]


def moved(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """A block of it in another place."""
    size = draw.randrange(1, 200)
    start, end = draw.randrange(len(content) - size), draw.randrange(len(content) - size)
    return content[:end] + content[start : start + size] + content[end + size :]


def inserted(content: bytes, other: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.randbytes(draw.randrange(1, 60)) + content[place:]


def removed(content: bytes, other: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + content[place + draw.randrange(1, 60) :]


@pytest.mark.parametrize("damage", [cleared, spliced, moved, inserted, removed])
def test_larger_damage_is_found(damage: Callable[..., bytes], path: Path) -> None:
    """200 times each; where a block happens to be the same as before, so is what is read."""
    write_tensor_file(path.with_name("other"), samples(1), ["cat", "dog"])
    content, other, expected = path.read_bytes(), path.with_name("other").read_bytes(), read(path)
    num_refused = 0
    for seed in range(200):
        path.write_bytes(damage(content, other, random.Random(seed)))
        if refused(path):
            num_refused += 1
        else:
            assert read(path) == expected
    assert num_refused > 100


def test_images_that_changed_places_are_found(path: Path) -> None:
    """They have the same length, and each is a whole image."""
    content = path.read_bytes()
    first, second = (sample.encoded for sample in samples(0)[:2])
    path.write_bytes(content.replace(first + second, second + first))
    file = TensorFile(path)
    with pytest.raises(UserError, match=r"damaged: image 0/1 does not match its CRC-32"):
        file.encoded(1)
    assert file.encoded(2).numpy().tobytes() == samples(0)[2].encoded, "the others are read"


def test_a_damaged_length_costs_no_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = path.read_bytes()
    path.write_bytes((2**63).to_bytes(8, "little") + content[8:])
    assert refused(path)


@pytest.mark.parametrize("content", [b"", b"\0", bytes(8), bytes(500), b"{}", b"hello" * 9])
def test_a_file_of_something_else_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert refused(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offsets": np.array([0, 40, 20, 120, 160, 160])}, "offsets do not ascend from 0 to 160"),
        ({"offsets": np.array([1, 40, 80, 120, 160, 160])}, "offsets do not ascend from 0 to 160"),
        ({"box_offsets": np.array([0, 0, 1, 3, 5, 5])}, "box_offsets do not ascend from 0 to 6"),
        (
            {"box_offsets": np.array([0, 0, 1, 3, 6])},
            r"box_offsets is .*int64, \(5,\)\), not .*int64, \(6,\)\)",
        ),
        ({"labels": np.array([1, 2, 1, 2, 1, 3])}, r"labels are outside 1\.\.2"),
        ({"labels": np.array([1, 2, 1, 2, 1, 0])}, r"labels are outside 1\.\.2"),
        ({"labels": np.array([1, 2, 1, 2, 1, 1], np.int32)}, r"labels is .*int32"),
        ({"boxes": np.full((6, 4), np.nan, np.float32)}, "boxes are not finite"),
        ({"boxes": np.zeros((6, 5), np.float32)}, r"boxes is .*\(6, 5\)"),
        ({"sizes": np.zeros((5, 2), np.int32)}, "sizes are not positive"),
        ({"crowd": np.zeros(5, np.bool_)}, r"crowd is .*\(5,\)"),
        ({"more": np.zeros(5, np.bool_)}, r"more is .*, not None"),
        ({"crc32": None}, r"crc32 is None, not"),
        ({"labels": None}, r"labels is None, not"),
    ],
)
def test_tensors_that_contradict_each_other_are_refused_whoever_wrote_them(
    change: dict[str, np.ndarray | None], said: str, path: Path
) -> None:
    """With the right digests."""
    arrays = {name: tensor.numpy() for name, tensor in load_file(path).items() if name != "images"}
    arrays = {name: array for name, array in (arrays | change).items() if array is not None}
    names = {"class_names": '["cat", "dog"]', "image_ids": '["a", "b", "c", "d", "e"]'}
    path.write_bytes(_head(arrays, names) + path.read_bytes()[-160:])
    with pytest.raises(UserError, match=f"damaged: {said}"):
        TensorFile(path)
    assert refused(path)


def test_a_file_that_shrinks_before_its_images_are_read_is_refused(path: Path) -> None:
    file = TensorFile(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"damaged: shorter than it was"):
        file.encoded(0)
    path.unlink()
    with pytest.raises(UserError, match=r"its images cannot be read: No such file") as caught:
        file.encoded(0)
    assert caught.value.path is None


def test_too_little_memory_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    def hashed(*_: object) -> None:
        raise MemoryError

    file = TensorFile(path)
    monkeypatch.setattr(tensor_file, "decode_image", decode)
    monkeypatch.setattr(tensor_head, "header_digest", hashed)
    for read_it, said in (
        (lambda: file.image(0), "not enough memory to decode image 0/0"),
        (lambda: TensorFile(path), "not enough memory to read it"),
    ):
        with pytest.raises(UserError, match=f"train.safetensors: {said}") as caught:
            read_it()
        assert caught.value.path is None, "to make it again does not help"
