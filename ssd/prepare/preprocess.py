"""Turns the images of a data set, divided into splits, into validated samples of train, val and test."""

import hashlib
import logging
import mmap
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile

from ssd.errors import UserError
from ssd.files import naming
from ssd.layouts import OWN_SOURCES, SPLITS
from ssd.parallel import ordered_map
from ssd.params import DataParams, PreprocessParams
from ssd.prepare.annotations import Box, Catalogue, ImageRef, Problem
from ssd.prepare.checks import CheckedObject, check_annotation, drop_leaks
from ssd.prepare.duplicates import (
    AnnotatedPicture,
    Fingerprint,
    find_contradictions,
    find_look_alikes,
    warn_of_contradictions,
    warn_of_look_alikes,
)
from ssd.prepare.images import ImageError, PackedImage, pack_image
from ssd.prepare.splits import Listing
from ssd.tensor_writer import AnnotatedImage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image. digest: SHA-256 of the image file."""

    packed: PackedImage
    digest: bytes


@dataclass(frozen=True)
class KeptImage:
    """A decoded image whose bytes are in the spool, at `place`.

    size, original_size, orientation, reencoded, fingerprint: see PackedImage; digest: SHA-256 of the file.
    """

    ref: ImageRef
    place: slice
    size: tuple[int, int]
    original_size: tuple[int, int]
    orientation: int
    reencoded: bool
    fingerprint: Fingerprint
    digest: bytes


@dataclass(frozen=True)
class Split:
    """A split, ready to be written, and statistics of its preparation.

    samples: in the order of the lists; problems: include those of images dropped from this split;
    num_shrunk, num_reencoded: number of downscaled and of re-encoded images (downscaled ones included).
    """

    samples: list[AnnotatedImage]
    problems: list[Problem]
    num_shrunk: int
    num_reencoded: int


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


class Spool:
    """An append-only temporary file, memory-mapped once it is complete.

    The file is in `folder` (not in the system's temporary folder, which may be in memory). It has no name, so
    it is deleted with its last view or when the process ends, even if killed.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the spool)
        self._size = 0

    def add(self, content: bytes) -> slice:
        """Append `content`; return its slice of `view`."""
        with naming(self.folder):
            self._file.write(content)
        place = slice(self._size, self._size + len(content))
        self._size = place.stop
        return place

    def view(self) -> memoryview:
        """All bytes so far, memory-mapped: the operating system loads and evicts them as needed."""
        if not self._size:
            return memoryview(b"")
        with naming(self.folder):
            self._file.flush()
        return memoryview(mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ))


def declared_classes(data: DataParams, catalogue: Catalogue) -> list[str]:
    """The class names set by `data.classes` or fixed by the source; [] if the annotations determine them."""
    if data.classes and data.source in OWN_SOURCES:
        return data.classes
    if data.classes:
        log.warning("data.classes: not used: %s has classes of its own", data.source)
    return list(catalogue.class_names)


def preprocess(
    listing: Listing, class_names: Sequence[str], params: PreprocessParams, scratch: Path
) -> Preprocessed:
    """Check and mend all annotations, and pack all images.

    The result does not depend on `params.workers`.

    Args:
        listing: see `ssd.prepare.splits.make_splits`.
        class_names: in label order; [] takes all names in the annotations of the train list, sorted.
        params: max_side, jpeg_quality and workers are used; `strict` is for `raise_if_unusable`.
        scratch: a folder with space for all images, which are kept there in an unnamed temporary file.

    Raises:
        UserError: a worker process was killed, or there is too little memory to decode an image.
    """
    spool = Spool(scratch)
    images, problems = _read_splits(listing, params, spool)
    images, leaks = drop_leaks(images, key=lambda image: image.digest)
    for leak in leaks:
        reason = f"the same image as {leak.original.ref.image_file} in {leak.owner}"
        problems[leak.split].append(_dropped_image(leak.member.ref, reason))
    names = list(class_names) or _annotated_classes(images, listing.class_source_ids)
    content = spool.view()
    splits = {split: _check_split(images[split], names, problems[split], content) for split in images}
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


def decode_image(path: Path, max_side: int, jpeg_quality: int) -> DecodedImage | str:
    """Read, decode and pack an image file; return the reason if it is missing or damaged.

    Raises:
        UserError: there is too little memory to decode it.
    """
    try:
        content = path.read_bytes()
        packed = pack_image(content, max_side, jpeg_quality)
    except OSError as error:
        return f"not readable ({error.strerror})"
    except ImageError as error:
        return str(error)
    except MemoryError:
        raise UserError(
            f"{path}: too little memory to decode it; free some, or set preprocess.workers to fewer"
        ) from None
    return DecodedImage(packed, hashlib.sha256(content).digest())


def _read_splits(
    listing: Listing, params: PreprocessParams, spool: Spool
) -> tuple[dict[str, list[KeptImage]], dict[str, list[Problem]]]:
    """The decodable images of each split, and the problems found so far."""
    images: dict[str, list[KeptImage]] = {split: [] for split in listing.images}
    problems = {split: list(found) for split, found in listing.problems.items()}
    refs = [(split, ref) for split, members in listing.images.items() for ref in members]
    decode = partial(decode_image, max_side=params.max_side, jpeg_quality=params.jpeg_quality)
    decoded = ordered_map(decode, [ref.path for _, ref in refs], params.workers, "preprocess")
    for (split, ref), result in zip(refs, decoded, strict=True):
        if isinstance(result, str):
            problems[split].append(_dropped_image(ref, result))
            continue
        packed = result.packed
        images[split].append(
            KeptImage(
                ref,
                spool.add(packed.content),
                packed.size,
                packed.original_size,
                packed.orientation,
                packed.reencoded,
                packed.fingerprint,
                result.digest,
            )
        )
    return images, problems


def _dropped_image(ref: ImageRef, reason: str) -> Problem:
    num_objects = ref.annotation.num_objects
    return Problem(ref.image_file, None, reason, "dropped", num_images=1, num_objects=num_objects)


def _annotated_classes(images: Mapping[str, Sequence[KeptImage]], class_source_ids: Set[str]) -> list[str]:
    """All class names, sorted, in the annotations of the decodable images with ids in `class_source_ids`."""
    every = (image.ref for image in chain.from_iterable(images.values()))
    return sorted(
        {found.name for ref in every if ref.id in class_source_ids for found in ref.annotation.objects}
    )


def _check_split(
    images: Sequence[KeptImage], names: Sequence[str], problems: Sequence[Problem], content: memoryview
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
