"""Turns the images of a data set, divided into splits, into validated samples of train, val and test."""

import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ssd.errors import UserError
from ssd.files import sha256
from ssd.layouts import OWN_SOURCES, SPLITS
from ssd.params import DataParams, PreprocessParams
from ssd.prepare.annotations import Box, Catalogue, ImageRef, Problem
from ssd.prepare.checks import CheckedObject, check_annotation, drop_leaks
from ssd.prepare.decode import KeptImage, Spool, all_refs, decode_images, dropped_image, keep_decodable
from ssd.prepare.duplicates import (
    AnnotatedPicture,
    find_contradictions,
    find_look_alikes,
    warn_of_contradictions,
    warn_of_look_alikes,
)
from ssd.prepare.packed import PackedImages
from ssd.prepare.splits import Listing, shard_of
from ssd.tensor_writer import AnnotatedImage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """A split, ready to be written, and statistics of its preparation.

    samples: in the order of the lists; positions: of each sample in the list of the split, and num_listed its
    length, which counts dropped images, too; problems: include those of images dropped from this split;
    num_shrunk, num_reencoded: number of downscaled and of re-encoded images (downscaled ones included).
    """

    samples: list[AnnotatedImage]
    positions: list[int]
    num_listed: int
    problems: list[Problem]
    num_shrunk: int
    num_reencoded: int

    def shards(self, num_shards: int) -> list[list[AnnotatedImage]]:
        """The samples in `num_shards` parts, in order.

        An image's place in the list decides: if one is mended or dropped, only its own part changes.
        """
        parts: list[list[AnnotatedImage]] = [[] for _ in range(num_shards)]
        for sample, position in zip(self.samples, self.positions, strict=True):
            parts[shard_of(position, self.num_listed, num_shards)].append(sample)
        return parts


@dataclass(frozen=True)
class Preprocessed:
    """All splits of a source.

    splits: "train", "val" and "test", all three; test_is_val: there are no test images, so the val images are
    used for testing and both splits are the same object; notes: remarks on the splits; warnings: what will
    harm training or its figures.
    """

    class_names: list[str]
    splits: dict[str, Split]
    test_is_val: bool
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def declared_classes(data: DataParams, catalogue: Catalogue) -> list[str]:
    """The class names set by `data.classes` or fixed by the source; [] if the annotations determine them."""
    if data.classes and data.source in OWN_SOURCES:
        return data.classes
    if data.classes:
        log.warning("data.classes: not used: %s has classes of its own", data.source)
    return list(catalogue.class_names)


def preprocess(
    listing: Listing,
    class_names: Sequence[str],
    params: PreprocessParams,
    scratch: Path,
    packed: PackedImages | None = None,
) -> Preprocessed:
    """Check and mend all annotations, and pack all images.

    The result does not depend on `params.workers`, nor on which images are packed already.

    Args:
        listing: see `ssd.prepare.splits.make_splits`.
        class_names: in label order; [] takes all names in the annotations of the train list, sorted.
        params: max_side, jpeg_quality and workers are used; `strict` is for `raise_if_unusable`.
        scratch: a folder with space for all images, which are kept there in an unnamed temporary file.
        packed: images that need not be decoded.

    Raises:
        UserError: a worker process was killed, there is too little memory to decode an image, or a packed
            one is damaged.
    """
    spool = Spool(scratch)
    paths = [ref.path for ref in all_refs(listing)]
    decoded = packed.decode(paths, params) if packed else decode_images(paths, params)
    images, problems = keep_decodable(listing, decoded, spool)
    images, leaks = drop_leaks(images, key=lambda image: image.digest)
    for leak in leaks:
        reason = f"the same image as {leak.original.ref.image_file} in {leak.owner}"
        problems[leak.split].append(dropped_image(leak.member.ref, reason))
    images = _without_copies(images, listing.left_out, problems)
    names = list(class_names) or _annotated_classes(images, listing.class_source_ids)
    content = spool.view()
    splits = {
        split: _check_split(images[split], len(listed), names, problems[split], content)
        for split, listed in listing.images.items()
    }
    warnings = [*_warn_of_duplicates(images, splits), *_warn_of_difficult(splits["train"])]
    if listing.test_is_val:
        splits["val"] = splits["test"]
    in_order = {split: splits[split] for split in SPLITS}
    return Preprocessed(names, in_order, listing.test_is_val, listing.notes, tuple(warnings))


def raise_if_unusable(
    result: Preprocessed, *, strict: bool, report: str | Path, unused: Sequence[Problem] = ()
) -> None:
    """Reject data that cannot be used for training or testing or, if `strict`, that has any problem.

    Args:
        report: the file that lists the problems, for the message.
        unused: files of the data set that no split uses. What its lists leave out is no problem.

    Raises:
        UserError: train or test has no images, train has no objects but crowds, or (strict) there are
            problems.
    """
    every = [*all_problems(result), *(("no split", found) for found in unused)]
    problems = [(split, found) for split, found in every if found.action != "unused"]
    first = ""
    if problems:
        split, problem = problems[0]
        where = f"{len(problems)} problem(s), listed in {report}, the first in {split}"
        first = f"{where}: {problem.file}: {problem.reason}"
    if strict and problems:
        raise UserError(f"{first}; mend the data or set preprocess.strict: false")
    for split in ("train", "test"):
        if not result.splits[split].samples:
            own = next((found for of, found in problems if of == split), None)
            hint = "its list is empty, or there is none; give the source one, or set preprocess.val_fraction"
            told = f"{own.file}: {own.reason}" if own else f"{hint} (or test_fraction) above 0"
            raise UserError(f"no image is left in {split}; {told}")
    crowd = [flag for sample in result.splits["train"].samples for flag in sample.crowd]
    if not crowd:
        raise UserError(
            f"no object is left in train for the classes {', '.join(result.class_names) or '(none found)'} "
            f"(data.classes); {first or 'annotate some'}"
        )
    if all(crowd):
        raise UserError(
            f"all {len(crowd)} objects of train are crowds (iscrowd: 1), which are never trained on; "
            "export single objects with iscrowd: 0 (CVAT writes 1 for brush masks)"
        )


def all_problems(result: Preprocessed) -> list[tuple[str, Problem]]:
    """(split, problem) pairs of all splits; those of val only once if test is val."""
    own = [split for split in SPLITS if not (result.test_is_val and split == "val")]
    return [(split, problem) for split in own for problem in result.splits[split].problems]


def _without_copies(
    images: Mapping[str, Sequence[KeptImage]],
    left_out: Sequence[ImageRef],
    problems: dict[str, list[Problem]],
) -> dict[str, list[KeptImage]]:
    """The images of each split but for those whose file is that of an image left out; problems are added."""
    originals = {sha256(ref.path): ref for ref in left_out if ref.path.is_file()}
    kept: dict[str, list[KeptImage]] = {split: [] for split in images}
    for split, members in images.items():
        for image in members:
            if original := originals.get(image.digest.hex()):
                reason = f"the same image as {original.image_file}, which is in no fold"
                problems[split].append(dropped_image(image.ref, reason))
            else:
                kept[split].append(image)
    return kept


def _annotated_classes(images: Mapping[str, Sequence[KeptImage]], class_source_ids: Set[str]) -> list[str]:
    """All class names, sorted, in the annotations of the decodable images with ids in `class_source_ids`."""
    every = (image.ref for image in chain.from_iterable(images.values()))
    return sorted(
        {found.name for ref in every if ref.id in class_source_ids for found in ref.annotation.objects}
    )


def _check_split(
    images: Sequence[KeptImage],
    num_listed: int,
    names: Sequence[str],
    problems: Sequence[Problem],
    content: memoryview,
) -> Split:
    samples, found = [], list(problems)
    for image in images:
        ref = image.ref
        objects, own_problems = check_annotation(
            ref.annotation, ref.annotation_file, image.original_size, names, image.orientation
        )
        samples.append(_sample(image, objects, content))
        found += own_problems
    return Split(
        samples,
        [image.position for image in images],
        num_listed,
        found,
        num_shrunk=sum(image.size != image.original_size for image in images),
        num_reencoded=sum(image.reencoded for image in images),
    )


def _warn_of_duplicates(
    images: Mapping[str, Sequence[KeptImage]], splits: Mapping[str, Split]
) -> Iterator[str]:
    """Of images that look alike in two splits, and of those of one split that contradict each other."""
    own = [split for split in SPLITS if split in images]
    hashes = {
        split: [(image.ref.image_file, image.fingerprint.dhash) for image in images[split]] for split in own
    }
    yield from warn_of_look_alikes(find_look_alikes(hashes))
    for split in own:
        pictures = [
            AnnotatedPicture(
                image.ref.image_file, image.fingerprint.samples, sample.encoded, _object_set(sample)
            )
            for image, sample in zip(images[split], splits[split].samples, strict=True)
        ]
        yield from warn_of_contradictions(split, find_contradictions(pictures))


def _warn_of_difficult(train: Split) -> Iterator[str]:
    """If no object can be learned from unless difficult ones can."""
    flags = [flags for sample in train.samples for flags in zip(sample.difficult, sample.crowd, strict=True)]
    if any(difficult and not crowd for difficult, crowd in flags) and all(map(any, flags)):
        yield "all objects of train are difficult: training needs train.train_on_difficult: true"


def _object_set(sample: AnnotatedImage) -> frozenset[tuple[float, ...]]:
    """Labels and boxes, to hundredths of a pixel."""
    return frozenset(
        (label, *(round(value, 2) for value in box))
        for label, box in zip(sample.labels, sample.boxes, strict=True)
    )


def _sample(image: KeptImage, objects: Sequence[CheckedObject], content: memoryview) -> AnnotatedImage:
    height, width = image.size
    original_height, original_width = image.original_size
    scale = width / original_width, height / original_height
    return AnnotatedImage(
        id=image.ref.id,
        encoded=content[image.place],
        size=image.size,
        boxes=[_scaled(found.box, *scale) for found in objects],
        labels=[found.label for found in objects],
        difficult=[found.difficult for found in objects],
        crowd=[found.crowd for found in objects],
    )


def _scaled(box: Box, scale_x: float, scale_y: float) -> Box:
    x1, y1, x2, y2 = box
    return x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y
