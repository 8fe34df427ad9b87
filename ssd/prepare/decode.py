"""Reads, decodes and packs the images of a data set, in several processes; keeps them in a temporary file."""

import hashlib
import mmap
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
    """A decoded image. digest: SHA-256 of the image file."""

    packed: PackedImage
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


def read_splits(
    listing: Listing, params: PreprocessParams, spool: Spool
) -> tuple[dict[str, list[KeptImage]], dict[str, list[Problem]]]:
    """The decodable images of each split, and the problems found so far."""
    images: dict[str, list[KeptImage]] = {split: [] for split in listing.images}
    problems = {split: list(found) for split, found in listing.problems.items()}
    refs = [
        (split, position, ref)
        for split, members in listing.images.items()
        for position, ref in enumerate(members)
    ]
    decode = partial(decode_image, max_side=params.max_side, jpeg_quality=params.jpeg_quality)
    decoded = ordered_map(decode, [ref.path for *_, ref in refs], params.workers, "preprocess")
    for (split, position, ref), result in zip(refs, decoded, strict=True):
        if isinstance(result, str):
            problems[split].append(dropped_image(ref, result))
            continue
        packed = result.packed
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


def dropped_image(ref: ImageRef, reason: str) -> Problem:
    num_objects = ref.annotation.num_objects
    return Problem(ref.image_file, None, reason, "dropped", num_images=1, num_objects=num_objects)
