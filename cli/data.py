"""The annotated images that a command measures a model on: a split of the pipeline, or a folder."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssd.errors import UserError
from ssd.files import sha256
from ssd.inference.folder_split import pack_folder
from ssd.layouts import SPLITS
from ssd.loading.tensor_file import TensorFile
from ssd.source.own_folder import copy_own, find_own


@contextmanager
def opened_data(data: str, split: str, class_names: Sequence[str]) -> Iterator[TensorFile]:
    """The images and objects at `data`, a tensor file, a folder, or the .zip of one.

    Args:
        split: of a folder: train, val, test, or all.
        class_names: of the model, without background.

    Raises:
        UserError: there is nothing at `data`, it has no such split, or it has other classes than the model.
    """
    path = Path(data).expanduser()
    if path.suffix == ".safetensors":
        file = TensorFile(path)
        if file.class_names != list(class_names):
            own, others = (", ".join(names) for names in (file.class_names, class_names))
            raise UserError(f"{path}: its classes are {own}; those of the model are {others}")
        yield file
        return
    if split not in (*SPLITS, "all"):
        raise UserError(f"--split: found {split!r}; allowed: {', '.join(SPLITS)}, all")
    with tempfile.TemporaryDirectory(prefix="ssd-data-") as folder:
        raw = Path(folder) / "raw"
        copy_own(find_own(data, Path.cwd(), "--data"), raw, "--data")
        target = Path(folder) / f"{split}.safetensors"
        for line in pack_folder(raw, target, split, class_names):
            print(line, file=sys.stderr)
        yield TensorFile(target)


def data_digest(file: TensorFile) -> str:
    """SHA-256 of the tensor file: the same images, objects and classes have the same one."""
    return sha256(file.path)
