"""From lists of images in VOC layout to the checked samples of train, val and test."""

import hashlib
import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from ssd.data.checks import CheckedObject, Problem, check_annotation, drop_leaks
from ssd.data.images import ImageError, PackedImage, pack_image
from ssd.data.parallel import ordered_map
from ssd.data.samples import Sample
from ssd.data.sources import VOC_CLASSES, VocList
from ssd.data.splits import ImageRef, Listing, list_images
from ssd.data.voc import Annotation, AnnotationError, Box, parse_annotation
from ssd.errors import UserError
from ssd.params import DataParams, PreprocessParams

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ReadImage:
    """An image that decodes, with its annotation. digest: SHA-256 of the image file."""

    ref: ImageRef
    image: PackedImage
    annotation: Annotation
    digest: bytes


@dataclass(frozen=True)
class Split:
    """A split, ready to be written, and what happened on the way.

    samples: in the order of the lists; problems: of images that were dropped from this split, too;
    num_shrunk, num_reencoded: images (every shrunk one is re-encoded).
    """

    samples: list[Sample]
    problems: list[Problem]
    num_shrunk: int
    num_reencoded: int


@dataclass(frozen=True)
class Preprocessed:
    """All splits of a source.

    splits: "train", "val" and "test", all three; test_is_val: the source has no test images but those of
    val, so the two are the same object; num_held_out: images of train's lists that became val.
    """

    class_names: list[str]
    splits: dict[str, Split]
    test_is_val: bool
    num_held_out: int


def declared_classes(data: DataParams) -> list[str]:
    """The class names that a source has by `data.classes` or by nature; [] where its annotations tell."""
    if data.source == "voc_dir":
        return data.classes
    if data.classes:
        log.warning("params.yaml: data.classes is not used: %s has classes of its own", data.source)
    return list(VOC_CLASSES) if data.source in ("voc2007", "voc2012", "voc0712") else []


def preprocess(
    lists: Mapping[str, Sequence[VocList]], class_names: Sequence[str], params: PreprocessParams
) -> Preprocessed:
    """Read, check, mend and pack all images and annotations of a source.

    The result does not depend on `params.workers`.

    Args:
        lists: of "train" and perhaps "val" and "test"; see `list_images`.
        class_names: in label order; [] takes all names in the annotations of train, sorted.
        params: max_side, jpeg_quality, val_fraction and workers; `strict` is for `refuse`.

    Raises:
        UserError: a list or a folder is missing, or a process was killed.
    """
    listing = list_images(lists, params.val_fraction)
    images, problems = _read_splits(listing, params)
    images, leaks = drop_leaks(images, key=lambda image: image.digest)
    for leak in leaks:
        reason = f"the same image as {leak.original.ref.image_file} in {leak.owner}"
        problems[leak.split].append(Problem(leak.member.ref.image_file, None, reason, "dropped"))
    names = list(class_names) or _annotated_classes(images, listing.held_out)
    splits = {split: _check_split(images[split], names, problems[split]) for split in images}
    if listing.test_is_val:
        splits["val"] = splits["test"]
    return Preprocessed(
        names, {split: splits[split] for split in SPLITS}, listing.test_is_val, len(listing.held_out)
    )


def refuse(result: Preprocessed, *, strict: bool, report: str | Path) -> None:
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
        raise UserError(f"{first}; mend the data or set preprocess.strict: false in params.yaml")
    for split in ("train", "test"):
        if not result.splits[split].samples:
            hint = "give the source a list for it or set preprocess.val_fraction above 0 in params.yaml"
            raise UserError(f"no image is left in {split}; {first or hint}")
    if not any(set(sample.labels) for sample in result.splits["train"].samples):
        raise UserError(
            f"no object is left in train for the classes {', '.join(result.class_names) or '(none found)'} "
            f"(params.yaml: data.classes); {first or 'annotate some'}"
        )


def all_problems(result: Preprocessed) -> list[tuple[str, Problem]]:
    """(split, problem) of all splits; those of val only once where test is val."""
    own = [split for split in SPLITS if not (result.test_is_val and split == "val")]
    return [(split, problem) for split in own for problem in result.splits[split].problems]


def read_image(ref: ImageRef, max_side: int, jpeg_quality: int) -> ReadImage | Problem:
    """Read an image and its annotation; a Problem where one of them is missing or broken."""
    if ref.image_name is None:
        return Problem(ref.image_file, None, "there is no .jpg, .jpeg or .png of this name", "dropped")
    try:
        annotation = parse_annotation(ref.annotation_path)
    except AnnotationError as error:
        return Problem(ref.annotation_file, None, str(error), "dropped")
    try:
        content = (ref.folder / "JPEGImages" / ref.image_name).read_bytes()
        image = pack_image(content, max_side, jpeg_quality)
    except OSError as error:
        return Problem(ref.image_file, None, f"not readable ({error.strerror})", "dropped")
    except ImageError as error:
        return Problem(ref.image_file, None, str(error), "dropped")
    return ReadImage(ref, image, annotation, hashlib.sha256(content).digest())


def _read_splits(
    listing: Listing, params: PreprocessParams
) -> tuple[dict[str, list[ReadImage]], dict[str, list[Problem]]]:
    """The images of each split that can be read, and the problems so far."""
    images: dict[str, list[ReadImage]] = {split: [] for split in listing.images}
    problems = {split: list(found) for split, found in listing.problems.items()}
    refs = list(chain.from_iterable(listing.images.values()))
    owners = chain.from_iterable([split] * len(members) for split, members in listing.images.items())
    read = partial(read_image, max_side=params.max_side, jpeg_quality=params.jpeg_quality)
    for split, result in zip(owners, ordered_map(read, refs, params.workers, "preprocess"), strict=True):
        if isinstance(result, Problem):
            problems[split].append(result)
        else:
            images[split].append(result)
    return images, problems


def _annotated_classes(images: Mapping[str, Sequence[ReadImage]], held_out: Set[str]) -> list[str]:
    """All class names in the annotations of train's lists, what is held out included, sorted."""
    return sorted(
        {
            found.name
            for split, members in images.items()
            for image in members
            if split == "train" or image.ref.id in held_out
            for found in image.annotation.objects
        }
    )


def _check_split(images: Sequence[ReadImage], names: Sequence[str], problems: Sequence[Problem]) -> Split:
    samples, found = [], list(problems)
    for image in images:
        file, size = image.ref.annotation_file, image.image.original_size
        objects, own_problems = check_annotation(image.annotation, file, size, names)
        samples.append(_sample(image, objects))
        found += own_problems
    packed = [image.image for image in images]
    return Split(
        samples,
        found,
        num_shrunk=sum(image.size != image.original_size for image in packed),
        num_reencoded=sum(image.reencoded for image in packed),
    )


def _sample(image: ReadImage, objects: Sequence[CheckedObject]) -> Sample:
    height, width = image.image.size
    original_height, original_width = image.image.original_size
    scale = width / original_width, height / original_height
    return Sample(
        id=image.ref.id,
        image=image.image.content,
        size=image.image.size,
        boxes=[_scaled(found.box, *scale) for found in objects],
        labels=[found.label for found in objects],
        difficult=[found.difficult for found in objects],
        crowd=[False] * len(objects),
    )


def _scaled(box: Box, scale_x: float, scale_y: float) -> Box:
    x1, y1, x2, y2 = box
    return x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y
