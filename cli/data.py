"""The annotated images that a command measures a model on: a split of the pipeline, or a folder."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssd.errors import UserError
from ssd.files import expand_home, sha256
from ssd.inference.folder_split import pack_folder
from ssd.layouts import SPLITS
from ssd.loading.tensor_file import TensorFile
from ssd.source.own_folder import copy_own, find_own
from ssd.tensor_writer import SHARD_NAME

TENSORS = Path("data/tensors")
"""Of the pipeline: a folder for each split."""


@contextmanager
def opened_data(
    data: str | None, split: str | None, class_names: Sequence[str], if_dropped: str = ""
) -> Iterator[TensorFile]:
    """The images and objects at `data`: a split of the pipeline, a folder, or the .zip of one.

    Args:
        data: a tensor file or a folder of them is a split; None takes the pipeline's own.
        split: train, val, test, or all, of a folder. None takes the pipeline's test split, or a whole folder.
        class_names: of the model, without background.
        if_dropped: what to say on stderr if annotations or images of a folder are left out.

    Raises:
        UserError: there is nothing at `data`, it has no such split, or it has other classes than the model.
    """
    if data is None or is_tensors(expand_home(data)):
        yield open_tensors(tensor_path(data, split), class_names)
        return
    if inside := [name for name in SPLITS if is_tensors(expand_home(data) / name)]:
        raise UserError(f"--data: {data} has a folder for each split; name one, as {Path(data) / inside[-1]}")
    split = split or "all"
    with tempfile.TemporaryDirectory(prefix="ssd-data-") as folder:
        raw = Path(folder) / "raw"
        copy_own(find_own(data, Path.cwd(), "--data"), raw, "--data")
        target = Path(folder) / f"{split}.safetensors"
        for line in pack_folder(raw, target, split, class_names, if_dropped):
            print(line, file=sys.stderr)
        yield TensorFile(target)


def is_tensors(path: Path) -> bool:
    """Whether it is a tensor file, or a folder of them, by name."""
    if path.is_dir():
        return any(SHARD_NAME.fullmatch(file.name) for file in path.iterdir())
    return path.suffix == ".safetensors"


def tensor_path(data: str | None, split: str | None) -> Path:
    """The tensor files that the options name: a split of the pipeline's, or any, which are one split.

    Raises:
        UserError: they are of another split.
    """
    if data is None:
        if split == "all":
            raise UserError(f"--split all: {TENSORS} has a folder for each split; name {', '.join(SPLITS)}")
        return TENSORS / (split or "test")
    path = expand_home(data)
    if (shard := SHARD_NAME.fullmatch(path.name)) and int(shard[2]) > 1:
        print(
            f"{path}: one of {int(shard[2])} tensor files of a split; all of it is {path.parent}",
            file=sys.stderr,
        )
    if split not in (None, "all", path.stem):
        raise UserError(f"--split {split}: {path} is one split; leave out --split, or name the other")
    return path


def open_tensors(path: Path, class_names: Sequence[str]) -> TensorFile:
    """A split of the model's classes.

    Raises:
        UserError: there is none, or it has other classes.
    """
    file = TensorFile(path)
    if file.class_names != list(class_names):
        own, others = (", ".join(names) for names in (file.class_names, class_names))
        raise UserError(f"{path}: its classes are {own}; those of the model are {others}")
    return file


def data_digest(file: TensorFile) -> str:
    """SHA-256 of the split: the same images, objects and classes have the same one."""
    return sha256(file.path)
