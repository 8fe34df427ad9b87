"""Assigns images to train, val and test: by the data set's own lists, held-out fractions, or folds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ssd.errors import UserError
from ssd.params import DataParams, PreprocessParams
from ssd.prepare.annotations import Catalogue, ImageRef, Problem
from ssd.prepare.checks import drop_leaks
from ssd.prepare.stratify import stratified_parts

log = logging.getLogger(__name__)

Images = dict[str, list[ImageRef]]


@dataclass(frozen=True)
class Listing:
    """The images of each split, and the problems found in the lists.

    images, problems: by split, "train", "test" and, unless `test_is_val`, "val". test_is_val: the val images
    are also the test images, as there are no others. class_source_ids: ids of the images whose annotations
    determine the class names: those of the train list, even if since moved to another split. notes: remarks
    on the splits for readers of the metrics. left_out: images of no split; no copy of their files may be in
    one either.
    """

    images: Images
    problems: dict[str, list[Problem]]
    test_is_val: bool
    class_source_ids: frozenset[str]
    notes: tuple[str, ...]
    left_out: tuple[ImageRef, ...] = ()

    def shard(self, number: int, num_shards: int) -> list[ImageRef]:
        """The images of all splits that belong to one shard, by their places in the lists."""
        return [
            ref
            for members in self.images.values()
            for position, ref in enumerate(members)
            if shard_of(position, len(members), num_shards) == number
        ]


def shard_of(position: int, num_listed: int, num_shards: int) -> int:
    """The shard, from 0, of the image at a position in the list of its split."""
    return position * num_shards // num_listed


def make_splits(catalogue: Catalogue, data: DataParams, params: PreprocessParams) -> Listing:
    """Assign each image to a split.

    An image in two lists stays in test rather than val, in val rather than train. Without a val list,
    `preprocess.val_fraction` of train is held out as val. Without a test list, `preprocess.test_fraction` of
    all images is held out first; if that is 0, val is the test split too. With `preprocess.train_on_val`, the
    images of a val list are part of train, and val is empty.

    With `data.folds`, the images of train and val are divided into that many folds: fold `data.fold` is test,
    the others are train, of which `val_fraction` is held out as val. What would be the test split without
    folds, a test list or `test_fraction` of all images, is in none of them, so models of all folds may be
    measured on it.

    Held-out splits and folds are stratified by class, with seed `preprocess.split_seed`; the result depends
    on the ids of the images, not on the order of the lists.

    Raises:
        UserError: there are more folds than images, or `train_on_val` would train on the test split.
    """
    problems = {split: list(found) for split, found in catalogue.problems.items()}
    images, leaks = drop_leaks(catalogue.images, key=lambda ref: ref.id)
    for leak in leaks:
        reason = f"is listed for {leak.owner} as well"
        lost = leak.member if leak.member.annotation_file != leak.original.annotation_file else None
        num_objects = lost.annotation.num_objects if lost else 0
        problems[leak.split].append(Problem(leak.member.image_file, None, reason, "dropped", 0, num_objects))
    if params.test_fraction > 0 and "test" in images:
        log.warning("preprocess.test_fraction: not used: the data set has a test split")
    if params.train_on_val and (data.folds or "val" not in images):
        why = "data.folds divides train and val" if data.folds else "the data set has no val split"
        log.warning("preprocess.train_on_val: not used: %s", why)
    if data.folds:
        return _fold(images, problems, data, params)
    if params.train_on_val and "val" in images:
        return _train_on_val(images, problems, params)
    return _hold_out(images, problems, params)


def _fold(
    images: Images, problems: Mapping[str, Sequence[Problem]], data: DataParams, params: PreprocessParams
) -> Listing:
    left_out, why = images.get("test", []), "not used: data.folds makes the test split"
    note = "the data set's own test split is not used"
    if "test" not in images and params.test_fraction > 0:
        images = _test_from_all(images, params)
        left_out, why = images["test"], "held out of all folds: preprocess.test_fraction"
        note = f"{len(left_out)} images were held out of all folds (preprocess.test_fraction)"
    pool = [*images["train"], *images.get("val", [])]
    if data.folds > len(pool):
        allowed = f"at most the number of train and val images, {len(pool)}"
        raise UserError(f"found {data.folds}; allowed: {allowed}", key="data.folds")
    parts = _assign_parts(pool, [1 / data.folds] * data.folds, params.split_seed)
    train = [ref for ref, part in zip(pool, parts, strict=True) if part != data.fold]
    test = [ref for ref, part in zip(pool, parts, strict=True) if part == data.fold]
    train, val = _split_off(train, params.val_fraction, params.split_seed)
    unused = [Problem(ref.image_file, None, why, "unused", 1, ref.annotation.num_objects) for ref in left_out]
    which = f"test is fold {data.fold} of 0 to {data.folds - 1} (data.fold) of the train and val images"
    return Listing(
        {"train": train, "val": val, "test": test},
        {
            "train": [*problems["train"], *problems.get("val", [])],
            "val": [],
            "test": [*problems.get("test", []), *unused],
        },
        test_is_val=False,
        class_source_ids=frozenset(ref.id for ref in pool),
        notes=(which, *([note] if left_out else []), *_held_out_note(val, "val")),
        left_out=tuple(left_out),
    )


def _train_on_val(
    images: Images, problems: Mapping[str, Sequence[Problem]], params: PreprocessParams
) -> Listing:
    if "test" not in images and params.test_fraction == 0:
        allowed = "false, as the val split is the test split, too; or preprocess.test_fraction above 0"
        raise UserError(f"found true; allowed: {allowed}", key="preprocess.train_on_val")
    joined = {**images, "train": [*images["train"], *images["val"]], "val": []}
    told = {**problems, "train": [*problems["train"], *problems["val"]], "val": []}
    listing = _hold_out(joined, {split: list(found) for split, found in told.items()}, params)
    note = "train includes the val split of the data set (preprocess.train_on_val); there is no validation"
    return replace(listing, notes=(note, *listing.notes))


def _hold_out(images: Images, problems: dict[str, list[Problem]], params: PreprocessParams) -> Listing:
    class_source_ids = frozenset(ref.id for ref in images["train"])
    notes: list[str] = []
    test_is_val = "test" not in images and params.test_fraction == 0
    if "test" not in images and not test_is_val:
        images = _test_from_all(images, params)
        notes += _held_out_note(images["test"], "test")
    if "val" not in images:
        images["train"], images["val"] = _split_off(images["train"], params.val_fraction, params.split_seed)
        notes += _held_out_note(images["val"], "val")
    if test_is_val:
        images["test"] = images.pop("val")
        problems["test"] = problems.pop("val", [])
        notes.insert(0, "the test split is the val split, on which the model is selected")
    every = {split: problems.get(split, []) for split in images}
    return Listing(images, every, test_is_val, class_source_ids, tuple(notes))


def _test_from_all(images: Images, params: PreprocessParams) -> Images:
    """`images` with a split "test": `test_fraction` of all images, removed from their former splits."""
    every = [ref for refs in images.values() for ref in refs]
    _, test = _split_off(every, params.test_fraction, params.split_seed)
    taken = {ref.id for ref in test}
    left = {split: [ref for ref in refs if ref.id not in taken] for split, refs in images.items()}
    return {**left, "test": test}


def _split_off(refs: list[ImageRef], fraction: float, seed: int) -> tuple[list[ImageRef], list[ImageRef]]:
    """The kept images and the held-out `fraction` (at least one image unless 0), both in input order."""
    if not refs or fraction == 0:
        return refs, []
    fraction = max(fraction, 1 / len(refs))
    parts = _assign_parts(refs, [1 - fraction, fraction], seed)
    kept = [ref for ref, part in zip(refs, parts, strict=True) if part == 0]
    return kept, [ref for ref, part in zip(refs, parts, strict=True) if part == 1]


def _assign_parts(refs: Sequence[ImageRef], fractions: Sequence[float], seed: int) -> list[int]:
    """The stratified part of each image; it depends on the ids, not on the order."""
    ordered = sorted(refs, key=lambda ref: ref.id)
    classes = [[found.name for found in ref.annotation.objects] for ref in ordered]
    parts = stratified_parts(classes, fractions, seed)
    part_of = {ref.id: part for ref, part in zip(ordered, parts, strict=True)}
    return [part_of[ref.id] for ref in refs]


def _held_out_note(refs: Sequence[ImageRef], split: str) -> list[str]:
    return [f"{len(refs)} images were held out as {split}"] if refs else []
