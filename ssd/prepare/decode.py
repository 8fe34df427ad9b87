"""Reads, decodes and packs the images of a data set, in several processes; keeps them in a temporary file."""

import hashlib
import mmap
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from ssd.errors import UserError
from ssd.files import naming
from ssd.parallel import ordered_map
from ssd.params import PreprocessParams
from ssd.prepare.annotations import ImageRef, Problem
from ssd.prepare.duplicates import Fingerprint
from ssd.prepare.images import ImageError, PackedImage, pack_image
from ssd.prepare.splits import Listing


@dataclass(frozen=True)
class DecodedImage:
    """An image file that has been decoded.

    packed: or the reason why it does not decode or cannot be read; digest: SHA-256 of the file, empty if it
    cannot be read.
    """

    packed: PackedImage | str
    digest: bytes


@dataclass(frozen=True)
class KeptImage:
    """A decoded image whose bytes are in the spool, at `place`.

    position: in the list of its split, in which those that do not decode count, too; size, original_size,
    orientation, reencoded, fingerprint: see PackedImage; digest: SHA-256 of the file.
    """

    ref: ImageRef
    position: int
    place: slice
    size: tuple[int, int]
    original_size: tuple[int, int]
    orientation: int
    reencoded: bool
    fingerprint: Fingerprint
    digest: bytes


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


def all_refs(listing: Listing) -> list[ImageRef]:
    """The images of all splits, one split after the other."""
    return [ref for members in listing.images.values() for ref in members]


def keep_decodable(
    listing: Listing, decoded: Iterable[DecodedImage], spool: Spool
) -> tuple[dict[str, list[KeptImage]], dict[str, list[Problem]]]:
    """The decodable images of each split, and the problems found so far.

    Args:
        decoded: of each of `all_refs(listing)`.
    """
    images: dict[str, list[KeptImage]] = {split: [] for split in listing.images}
    problems = {split: list(found) for split, found in listing.problems.items()}
    refs = [
        (split, position, ref)
        for split, members in listing.images.items()
        for position, ref in enumerate(members)
    ]
    for (split, position, ref), result in zip(refs, decoded, strict=True):
        packed = result.packed
        if isinstance(packed, str):
            problems[split].append(dropped_image(ref, packed))
            continue
        images[split].append(
            KeptImage(
                ref,
                position,
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


def decode_images(paths: Sequence[Path], params: PreprocessParams) -> Generator[DecodedImage, None, None]:
    """Read, decode and pack image files, in `params.workers` processes; the results are in order.

    Raises:
        UserError: a worker process was killed, or there is too little memory to decode an image.
    """
    decode = partial(decode_image, max_side=params.max_side, jpeg_quality=params.jpeg_quality)
    return ordered_map(decode, paths, params.workers, "preprocess")


def decode_image(path: Path, max_side: int, jpeg_quality: int) -> DecodedImage:
    """Read, decode and pack an image file.

    Raises:
        UserError: there is too little memory to decode it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return DecodedImage(f"not readable ({error.strerror})", b"")
    digest = hashlib.sha256(content).digest()
    try:
        return DecodedImage(pack_image(content, max_side, jpeg_quality), digest)
    except ImageError as error:
        return DecodedImage(str(error), digest)
    except MemoryError:
        raise UserError(
            f"{path}: too little memory to decode it; free some, or set preprocess.workers to fewer"
        ) from None


def dropped_image(ref: ImageRef, reason: str) -> Problem:
    num_objects = ref.annotation.num_objects
    return Problem(ref.image_file, None, reason, "dropped", num_images=1, num_objects=num_objects)
