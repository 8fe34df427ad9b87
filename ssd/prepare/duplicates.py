"""Finds images of two splits that look alike (leakage), and the same picture with other boxes in one split.

Images are compared by a difference hash, dHash: whether each of 9x9 mean greys is brighter than its left and
than its upper neighbour (N. Krawetz, "Kind of Like That", hackerfactor.com, 2013; both directions, 128 bits:
B. Hoyt, "Duplicate image detection with perceptual hashing in Python", 2017).
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DISTANCE = 10
"""Bits of 128 that may differ in images that look alike.

Measured: of images saved again as JPEG of quality 50, at 0.5 to 0.7 of their size, stretched to a square,
brighter by a fifth, with less contrast, blurred or noisy, 97 to 100 % are found; cropped by 2 % on each side,
half. Of 13.6 million pairs of images of `shapes` none differs by less than 18 bits; of 88 000 pairs of photos
of BCCD, and of samples of VOC, COCO and Penn-Fudan, one by 7, which shows the same cells twice, and none
by 8 to 23.
"""

MIN_CONTRAST = 8
"""Grey levels between the darkest and the brightest of the 9x9; in flatter images, noise decides the bits."""

NUM_NAMED = 10
"""Pairs of names in a warning."""

_CELLS, _SAMPLES_PER_CELL = 9, 12
_BLOCK = 1 << 16  # distances computed at once; they stay in the CPU's cache


@dataclass(frozen=True)
class Fingerprint:
    """What of an image is compared.

    dhash: difference hash, 16 bytes; None if the image is too flat to be compared. samples: a digest of some
    of the pixels, so the same for the same picture.
    """

    dhash: bytes | None
    samples: bytes


def take_fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of an RGB image of any size.

    Each of the 9x9 cells is the mean of 12x12 sampled pixels, which takes a third of the time of all pixels.
    """
    side = _CELLS * _SAMPLES_PER_CELL
    samples = image.resize((side, side), Image.Resampling.NEAREST).convert("L")
    digest = hashlib.blake2b(samples.tobytes(), digest_size=16).digest()
    grey = np.asarray(samples.resize((_CELLS, _CELLS), Image.Resampling.BOX))
    if int(grey.max()) - int(grey.min()) < MIN_CONTRAST:
        return Fingerprint(None, digest)
    corner = grey[:-1, :-1]
    return Fingerprint(np.packbits([grey[:-1, 1:] > corner, grey[1:, :-1] > corner]).tobytes(), digest)


@dataclass(frozen=True)
class LookAlike:
    """An image of `split`, and the most similar image of `other_split`."""

    split: str
    name: str
    other_split: str
    other_name: str


def find_look_alikes(splits: Mapping[str, Sequence[tuple[str, bytes | None]]]) -> list[LookAlike]:
    """For each image, the most similar image of each later split, if they look alike.

    Every pair is compared, 10**9 of them in about a second.

    Args:
        splits: by name; of each image its name and its difference hash.
    """
    hashed = {
        split: [(name, dhash) for name, dhash in images if dhash is not None]
        for split, images in splits.items()
    }
    return [
        LookAlike(split, images[row][0], other_split, others[column][0])
        for (split, images), (other_split, others) in combinations(hashed.items(), 2)
        for row, column in _nearest(_words(images), _words(others))
    ]


def _words(images: Sequence[tuple[str, bytes]]) -> NDArray[np.uint64]:
    """Hashes as uint64 [N, 2]."""
    return np.frombuffer(b"".join(dhash for _, dhash in images), np.uint64).reshape(-1, 2)


def _nearest(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Of each row of `hashes` the nearest row of `others`, if their distance is at most MAX_DISTANCE."""
    if not len(others):
        return
    first, second = np.ascontiguousarray(others.T)
    num_rows = max(_BLOCK // len(others), 1)
    for start in range(0, len(hashes), num_rows):
        block = hashes[start : start + num_rows]
        distances = np.bitwise_count(block[:, :1] ^ first)
        distances += np.bitwise_count(block[:, 1:] ^ second)
        for row in np.flatnonzero(distances.min(axis=1) <= MAX_DISTANCE).tolist():
            yield start + row, int(distances[row].argmin())


def warn_of_look_alikes(found: Sequence[LookAlike]) -> list[str]:
    """One line for each pair of splits."""
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for one in found:
        pairs[one.split, one.other_split].append((one.name, one.other_name))
    return [
        f"{len(names)} image(s) of {split} look like images of {other_split}: {_named(names, '~')}"
        for (split, other_split), names in pairs.items()
    ]


def _named(pairs: Sequence[tuple[str, str]], sign: str) -> str:
    named = ", ".join(f"{one} {sign} {other}" for one, other in pairs[:NUM_NAMED])
    return f"{named}, ..." if len(pairs) > NUM_NAMED else named


@dataclass(frozen=True)
class AnnotatedPicture:
    """samples: see Fingerprint; content: the image as JPEG or PNG; objects: equal if the objects are."""

    name: str
    samples: bytes
    content: bytes | memoryview
    objects: Hashable


def find_contradictions(pictures: Sequence[AnnotatedPicture]) -> list[tuple[str, str]]:
    """Names of images that have the same pixels and other objects: each with the first such image."""
    found: list[tuple[str, str]] = []
    for twins in _grouped((picture.samples, picture) for picture in pictures):
        if len({picture.objects for picture in twins}) == 1:
            continue
        for first, *others in _grouped((_digest_of_pixels(picture.content), picture) for picture in twins):
            found += [(first.name, other.name) for other in others if other.objects != first.objects]
    return found


def warn_of_contradictions(split: str, found: Sequence[tuple[str, str]]) -> list[str]:
    """One line for a split, or none."""
    if not found:
        return []
    return [
        f"{len(found)} image(s) of {split} have the pixels of another, but other boxes: {_named(found, '=')}"
    ]


def _grouped(
    pairs: Iterator[tuple[Hashable, AnnotatedPicture]],
) -> Iterator[list[AnnotatedPicture]]:
    groups: dict[Hashable, list[AnnotatedPicture]] = defaultdict(list)
    for key, picture in pairs:
        groups[key].append(picture)
    yield from groups.values()


def _digest_of_pixels(content: bytes | memoryview) -> bytes:
    with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
        pixels = np.asarray(image)
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
