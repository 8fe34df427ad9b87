"""The tensor file: what is written is read, by this project and by the safetensors library."""

import binascii
import pickle
from pathlib import Path

import pytest
import torch
from flagged_objects import Flagged, write_flagged
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset

from ssd.errors import UserError
from ssd.loading.tensor_file import TensorFile
from ssd.tensor_writer import AnnotatedImage, write_tensor_file

SAMPLES = [
    AnnotatedImage(
        "a", b"first image", (30, 40), [(0, 0, 9.5, 9), (1, 2, 3, 4)], [2, 1], [False, True], [False, False]
    ),
    AnnotatedImage("VOC2012/ö", b"", (1, 2), [], [], [], []),
    AnnotatedImage("c", b"the third", (375, 500), [(5, 6, 7, 8)], [1], [False], [True]),
]
NAMES = ["cat", "köter"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensor_file(tmp_path / "train.safetensors", SAMPLES, NAMES)
    return tmp_path / "train.safetensors"


def encoded(file: TensorFile) -> list[bytes]:
    return [file.encoded(index).numpy().tobytes() for index in range(len(file))]


def test_what_was_written_is_read(path: Path) -> None:
    file = TensorFile(path)
    assert file.class_names == NAMES
    assert file.image_ids == [sample.id for sample in SAMPLES]
    assert encoded(file) == [sample.encoded for sample in SAMPLES]
    assert file.sizes.tolist() == [list(sample.size) for sample in SAMPLES]
    for index, sample in enumerate(SAMPLES):
        objects = file.objects(index)
        assert objects.boxes.tolist() == [list(box) for box in sample.boxes]
        assert objects.labels.tolist() == list(sample.labels)
        pairs = zip(sample.difficult, sample.crowd, strict=True)
        assert objects.ignored.tolist() == [difficult or crowd for difficult, crowd in pairs]


def test_difficult_objects_are_ignored_unless_trained_on_and_crowd_always(path: Path) -> None:
    """Of image a, one object is difficult; the only object of image c is crowd."""
    for train_on_difficult, of_a, num_boxes in ((False, [False, True], 1), (True, [False, False], 2)):
        file = TensorFile(path, train_on_difficult=train_on_difficult)
        for reader in (file, pickle.loads(pickle.dumps(file))):
            assert [reader.objects(index).ignored.tolist() for index in range(3)] == [of_a, [], [True]]
            assert len(reader.normalised_boxes()) == num_boxes, "what k-means and priors.json are given"


def test_images_with_objects_are_those_with_one_that_is_not_ignored(tmp_path: Path) -> None:
    plain, difficult, crowd = Flagged(), Flagged(difficult=True), Flagged(crowd=True)
    images = [[], [difficult], [plain], [crowd], [difficult, plain]]
    file = write_flagged(tmp_path / "train.safetensors", images)
    assert file.images_with_objects() == [2, 4]
    with_difficult = TensorFile(file.path, train_on_difficult=True)
    assert with_difficult.images_with_objects() == [1, 2, 4]


def test_an_image_without_objects_has_tensors_of_the_right_shape(path: Path) -> None:
    objects = TensorFile(path).objects(1)
    assert objects.boxes.shape == (0, 4)
    assert objects.labels.shape == objects.ignored.shape == (0,)


def test_the_library_reads_the_file_with_the_documented_types(path: Path) -> None:
    tensors = load_file(path)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} == {
        "images": (torch.uint8, (20,)),
        "offsets": (torch.int64, (4,)),
        "sizes": (torch.int32, (3, 2)),
        "boxes": (torch.float32, (3, 4)),
        "crc32": (torch.int64, (3,)),
        "labels": (torch.int64, (3,)),
        "difficult": (torch.bool, (3,)),
        "crowd": (torch.bool, (3,)),
        "box_offsets": (torch.int64, (4,)),
    }
    assert tensors["images"].numpy().tobytes() == b"first imagethe third"
    assert tensors["offsets"].tolist() == [0, 11, 11, 20]
    assert tensors["box_offsets"].tolist() == [0, 2, 2, 3]
    assert tensors["crc32"].tolist() == [binascii.crc32(sample.encoded) for sample in SAMPLES]


def test_a_file_of_no_images(tmp_path: Path) -> None:
    write_tensor_file(tmp_path / "val.safetensors", [], NAMES)
    file = TensorFile(tmp_path / "val.safetensors")
    assert len(file) == 0
    assert file.class_names == NAMES
    assert file.sizes.shape == (0, 2)
    assert file.boxes.shape == (0, 4)
    assert load_file(tmp_path / "val.safetensors")["offsets"].tolist() == [0]


def test_images_without_any_object_or_byte(tmp_path: Path) -> None:
    write_tensor_file(tmp_path / "val.safetensors", [SAMPLES[1]], NAMES)
    file = TensorFile(tmp_path / "val.safetensors")
    assert encoded(file) == [b""]
    assert file.objects(0).boxes.shape == (0, 4)


def test_the_same_samples_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    # Five times, for a random order would come out right now and then.
    for number in range(5):
        write_tensor_file(tmp_path / f"{number}.safetensors", SAMPLES, NAMES)
        assert (tmp_path / f"{number}.safetensors").read_bytes() == path.read_bytes()


def test_encoded_is_a_copy(path: Path) -> None:
    file = TensorFile(path)
    file.encoded(0).zero_()
    assert encoded(file)[0] == SAMPLES[0].encoded


class Lengths(Dataset[int]):
    """A data set that holds a tensor file, as the one for training does."""

    def __init__(self, file: TensorFile) -> None:
        self.file = file

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, index: int) -> int:
        return len(self.file.encoded(index))


def test_an_opened_file_may_be_pickled(path: Path) -> None:
    file = TensorFile(path)
    assert encoded(file)
    pickled = pickle.dumps(file)
    assert b"first image" not in pickled, "images are to be mapped, not sent"
    copy = pickle.loads(pickled)
    assert encoded(copy) == encoded(file)
    assert copy.objects(0).boxes.equal(file.objects(0).boxes)


def test_an_opened_file_may_go_to_a_worker_process(path: Path) -> None:
    file = TensorFile(path)
    assert encoded(file)
    loader = DataLoader(Lengths(file), batch_size=None, num_workers=1)
    assert list(loader) == [len(sample.encoded) for sample in SAMPLES]


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"val\.safetensors: not found$") as caught:
        TensorFile(tmp_path / "val.safetensors")
    assert caught.value.path == tmp_path / "val.safetensors"


@pytest.mark.parametrize("metadata", [None, {"format": "ssd-tensors-1"}])
def test_another_format_is_an_error(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"boxes": torch.zeros(1, 4)}, tmp_path / "old.safetensors", metadata)
    said = "of the format ssd-tensors-1, not" if metadata else "not a tensor file of format"
    with pytest.raises(UserError, match=f"old.safetensors: {said} ssd-tensors-2"):
        TensorFile(tmp_path / "old.safetensors")


def test_an_interrupted_write_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    broken = AnnotatedImage("d", "no bytes", (1, 1), [], [], [], [])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        write_tensor_file(path, [broken], NAMES)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
