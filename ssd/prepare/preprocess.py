"""From the images of a data set, divided into splits, to the checked samples of train, val and test."""

import hashlib
import logging
import mmap
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile

from ssd.errors import UserError
from ssd.layouts import SPLITS
from ssd.parallel import ordered_map
from ssd.params import DataParams, PreprocessParams
from ssd.prepare.annotations import Box, Catalogue, ImageRef, Problem
from ssd.prepare.checks import CheckedObject, check_annotation, drop_leaks
from ssd.prepare.images import ImageError, PackedImage, pack_image
from ssd.prepare.splits import Listing
from ssd.tensor_writer import AnnotatedImage

log = logging.getLogger(__name__)

OWN_SOURCES = ("voc_dir", "coco_json", "yolo_dir")


@dataclass(frozen=True)
class DecodedImage:
    """An image that decodes. digest: SHA-256 of the image file."""

    packed: PackedImage
    digest: bytes


@dataclass(frozen=True)
class KeptImage:
    """What is known of an image that decodes while its bytes wait in the spool, at `place`.

    size, original_size: (height, width) in pixels, after and before it was shrunk; digest: SHA-256 of the
    file.
    """

    ref: ImageRef
    place: slice
    size: tuple[int, int]
    original_size: tuple[int, int]
    reencoded: bool
    digest: bytes


@dataclass(frozen=True)
class Split:
    """A split, ready to be written, and what happened on the way.

    samples: in the order of the lists; problems: of images that were dropped from this split, too;
    num_shrunk, num_reencoded: images (every shrunk one is re-encoded).
    """

    samples: list[AnnotatedImage]
    problems: list[Problem]
    num_shrunk: int
    num_reencoded: int


@dataclass(frozen=True)
class Preprocessed:
    """All splits of a source.

    splits: "train", "val" and "test", all three; test_is_val: there are no test images but those of val, so
    the two are the same object; notes: what to know about the splits.
    """

    class_names: list[str]
    splits: dict[str, Split]
    test_is_val: bool
    notes: tuple[str, ...]


class Spool:
    """Takes pieces of bytes one after the other; gives views of them once all are there.

    The file lies in `folder` (not in the system's temporary folder, which may be memory itself) and is gone
    with the last view of it, or with the process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the spool)
        self._size = 0

    def add(self, content: bytes) -> slice:
        """Append `content`; returns its place in `view`."""
        self._file.write(content)
        place = slice(self._size, self._size + len(content))
        self._size = place.stop
        return place

    def view(self) -> memoryview:
        """All bytes so far, mapped from the file: the system loads and drops them as they are used."""
        if not self._size:
            return memoryview(b"")
        self._file.flush()
        return memoryview(mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ))


def declared_classes(data: DataParams, catalogue: Catalogue) -> list[str]:
    """The class names that a source has by `data.classes` or by nature; [] where its annotations tell."""
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
        class_names: in label order; [] takes all names in the annotations of train's list, sorted.
        params: max_side, jpeg_quality and workers; `strict` is for `raise_if_unusable`.
        scratch: a folder with room for all images, which wait there in a file without a name.

    Raises:
        UserError: a process was killed.
    """
    spool = Spool(scratch)
    images, problems = _read_splits(listing, params, spool)
    images, leaks = drop_leaks(images, key=lambda image: image.digest)
    for leak in leaks:
        reason = f"the same image as {leak.original.ref.image_file} in {leak.owner}"
        problems[leak.split].append(Problem(leak.member.ref.image_file, None, reason, "dropped"))
    names = list(class_names) or _annotated_classes(images, listing.named_by)
    content = spool.view()
    splits = {split: _check_split(images[split], names, problems[split], content) for split in images}
    if listing.test_is_val:
        splits["val"] = splits["test"]
    return Preprocessed(names, {split: splits[split] for split in SPLITS}, listing.test_is_val, listing.notes)


def raise_if_unusable(result: Preprocessed, *, strict: bool, report: str | Path) -> None:
    """Refuse data that nothing can be learned from or, if `strict`, that has any problem.

    Args:
        report: the file that lists the problems, for the message.

    Raises:
        UserError: train or test has no images, there is no class, or (strict) there are problems.
    """
    problems = all_problems(result)
    first = ""
    if problems:
        split, problem = problems[0]
        where = f"{len(problems)} problem(s), listed in {report}, the first in {split}"
        first = f"{where}: {problem.file}: {problem.reason}"
    if strict and problems:
        raise UserError(f"{first}; mend the data or set preprocess.strict: false")
    for split in ("train", "test"):
        if not result.splits[split].samples:
            hint = "give the source a list for it, or set preprocess.val_fraction (or test_fraction) above 0"
            raise UserError(f"no image is left in {split}; {first or hint}")
    if not any(set(sample.labels) for sample in result.splits["train"].samples):
        raise UserError(
            f"no object is left in train for the classes {', '.join(result.class_names) or '(none found)'} "
            f"(data.classes); {first or 'annotate some'}"
        )


def all_problems(result: Preprocessed) -> list[tuple[str, Problem]]:
    """(split, problem) of all splits; those of val only once where test is val."""
    own = [split for split in SPLITS if not (result.test_is_val and split == "val")]
    return [(split, problem) for split in own for problem in result.splits[split].problems]


def decode_image(path: Path, max_side: int, jpeg_quality: int) -> DecodedImage | str:
    """Read and pack an image file; why that cannot be done, where it is missing or broken."""
    try:
        content = path.read_bytes()
        packed = pack_image(content, max_side, jpeg_quality)
    except OSError as error:
        return f"not readable ({error.strerror})"
    except ImageError as error:
        return str(error)
    return DecodedImage(packed, hashlib.sha256(content).digest())


def _read_splits(
    listing: Listing, params: PreprocessParams, spool: Spool
) -> tuple[dict[str, list[KeptImage]], dict[str, list[Problem]]]:
    """The images of each split that can be read, and the problems so far."""
    images: dict[str, list[KeptImage]] = {split: [] for split in listing.images}
    problems = {split: list(found) for split, found in listing.problems.items()}
    refs = [(split, ref) for split, members in listing.images.items() for ref in members]
    decode = partial(decode_image, max_side=params.max_side, jpeg_quality=params.jpeg_quality)
    decoded = ordered_map(decode, [ref.path for _, ref in refs], params.workers, "preprocess")
    for (split, ref), result in zip(refs, decoded, strict=True):
        if isinstance(result, str):
            problems[split].append(Problem(ref.image_file, None, result, "dropped"))
            continue
        packed = result.packed
        place = spool.add(packed.content)
        images[split].append(
            KeptImage(ref, place, packed.size, packed.original_size, packed.reencoded, result.digest)
        )
    return images, problems


def _annotated_classes(images: Mapping[str, Sequence[KeptImage]], named_by: Set[str]) -> list[str]:
    """All class names in the annotations of the images of `named_by` that can be read, sorted."""
    every = (image.ref for image in chain.from_iterable(images.values()))
    return sorted({found.name for ref in every if ref.id in named_by for found in ref.annotation.objects})


def _check_split(
    images: Sequence[KeptImage], names: Sequence[str], problems: Sequence[Problem], content: memoryview
) -> Split:
    samples, found = [], list(problems)
    for image in images:
        ref = image.ref
        objects, own_problems = check_annotation(
            ref.annotation, ref.annotation_file, image.original_size, names
        )
        samples.append(_sample(image, objects, content))
        found += own_problems
    return Split(
        samples,
        found,
        num_shrunk=sum(image.size != image.original_size for image in images),
        num_reencoded=sum(image.reencoded for image in images),
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
