"""Tensor files without pixels, of objects that differ in their labels and flags alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssd.loading.tensor_file import TensorFile
from ssd.tensor_writer import AnnotatedImage, write_tensor_file


class Flagged(NamedTuple):
    """An object: its label, from 1, and its flags."""

    label: int = 1
    difficult: bool = False
    crowd: bool = False


def write_flagged(path: Path, images: Sequence[Sequence[Flagged]]) -> TensorFile:
    """Write images of these objects, of two classes; every box is the same."""
    samples = [
        AnnotatedImage(
            id=str(index),
            encoded=b"",
            size=(9, 9),
            boxes=[(0.0, 0.0, 5.0, 5.0)] * len(objects),
            labels=[item.label for item in objects],
            difficult=[item.difficult for item in objects],
            crowd=[item.crowd for item in objects],
        )
        for index, objects in enumerate(images)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensor_file(path, samples, ["cat", "dog"])
    return TensorFile(path)
