"""One split of a user's folder as a tensor file, to measure a model on; the pipeline makes all splits."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from ssd.errors import UserError
from ssd.layouts import SPLITS
from ssd.params import DataParams, PreprocessParams
from ssd.prepare.preprocess import preprocess
from ssd.prepare.sources import read_own
from ssd.prepare.splits import Listing
from ssd.tensor_writer import write_tensor_file


def pack_folder(
    folder: Path, target: Path, split: str, class_names: Sequence[str], if_dropped: str = ""
) -> list[str]:
    """Write the images of a split, in their own size, to a tensor file.

    Args:
        folder: images and annotations in any format that is recognised.
        target: the tensor file.
        split: train, val, test, or all.
        class_names: of the model, in label order; objects of other classes are dropped.
        if_dropped: what else to say if anything is.

    Returns:
        Lines for the user: what the folder was taken for, and what was dropped and why.

    Raises:
        UserError: the format is not recognised, or no image or no object of these classes is left.
    """
    catalogue = read_own(_data_params(class_names), folder)
    wanted = list(SPLITS) if split == "all" else [split]
    images = list(chain.from_iterable(catalogue.images.get(name, []) for name in wanted))
    if not images:
        found = ", ".join(name for name in SPLITS if catalogue.images.get(name))
        raise UserError(f"--split {split}: the folder has no such images; it has {found or 'none'}")
    problems = list(chain.from_iterable(catalogue.problems.get(name, []) for name in wanted))
    listing = Listing({"test": images, "train": []}, {"test": problems, "train": []}, True, frozenset(), ())
    settings = PreprocessParams(
        max_side=16384,
        jpeg_quality=95,
        val_fraction=0.0,
        test_fraction=0.0,
        train_on_val=False,
        split_seed=0,
        strict=False,
        shards=1,
        workers=0,
    )
    packed = preprocess(listing, class_names, settings, target.parent).splits["test"]
    dropped = [problem for problem in packed.problems if problem.action == "dropped"]
    lines = [f"read as {catalogue.found.layout}: {len(packed.samples)} images"]
    if dropped:
        first = f"{dropped[0].file}: {dropped[0].reason}"
        lines.append(f"dropped {len(dropped)} annotations or images, the first: {first}")
        lines += [if_dropped] if if_dropped else []
    if not any(sample.labels for sample in packed.samples):
        names = ", ".join(class_names)
        raise UserError(f"no object of the model's classes ({names}) is left; {'; '.join(lines)}")
    write_tensor_file(target, packed.samples, class_names)
    return lines


def _data_params(class_names: Sequence[str]) -> DataParams:
    """Of a folder whose format is to be recognised."""
    return DataParams(
        source="folder",
        path=".",
        classes=list(class_names),
        archives=".",
        mirrors=[],
        folds=0,
        fold=0,
        shapes_train=1,
        shapes_val=1,
        shapes_test=1,
        shapes_side=64,
        shapes_seed=0,
    )
