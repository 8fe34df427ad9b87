"""Files of images that other processes have decoded and packed, for preprocess, which then need not do it.

An image is found by the SHA-256 of its file, so what is packed cannot be older than the data. A packed file
is a safetensors file with two tensors:
    images   uint8 [bytes]   the contents of all packed images, end to end
    table    uint8 [bytes]   JSON: "settings", all that decides how an image file is packed, and "rows", one
                             for each image file: where in `images` it is and what else PackedImage has, or
                             the reason why it does not decode
Its metadata is the SHA-256 of the table; each row has the CRC-32 of its image. What is read is what was
written.
"""

import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ssd.errors import UserError
from ssd.files import replacing, sha256
from ssd.params import PreprocessParams
from ssd.prepare.decode import DecodedImage, Spool, decode_images
from ssd.prepare.duplicates import Fingerprint
from ssd.prepare.images import PackedImage

log = logging.getLogger(__name__)

PACKED_FORMAT = "ssd-packed-1"
CODE = ("decode", "images", "orientation", "plain_files", "duplicates")
"""Modules beside this one that decide what becomes of an image file."""


def shard_name(number: int, num_shards: int) -> str:
    """Name of the packed file of one shard."""
    return f"{number:05d}-of-{num_shards:05d}.safetensors"


def write_packed(path: Path, decoded: Iterable[DecodedImage], params: PreprocessParams) -> tuple[int, int]:
    """Write a packed file, atomically; image files that cannot be read are left out.

    The contents wait in an unnamed temporary file beside it, as they may be more than memory holds.

    Returns:
        The number of image files in it, and of those that do not decode.
    """
    spool = Spool(path.parent)
    rows: dict[bytes, dict[str, Any]] = {}
    for image in decoded:
        if image.digest and image.digest not in rows:
            rows[image.digest] = _row(image, spool)
    table = json.dumps({"settings": _settings(params), "rows": list(rows.values())}).encode()
    tensors = {
        "images": np.frombuffer(spool.view(), np.uint8),
        "table": np.frombuffer(table, np.uint8),
    }
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, {"sha256": hashlib.sha256(table).hexdigest()})
        except SafetensorError as error:
            raise UserError(f"{path}: cannot be written: {error}; make room and run again") from None
    return len(rows), sum("reason" in row for row in rows.values())


class PackedImages:
    """The images in the packed files of a folder, which may be missing.

    A packed file of other settings or another version of the code is not used; a warning says so.

    Raises:
        UserError: a packed file is damaged or cannot be read.
    """

    def __init__(self, folder: Path, params: PreprocessParams) -> None:
        settings = _settings(params)
        files = [_PackedFile(path) for path in sorted(folder.glob("[!.]*.safetensors"))]
        self._rows = {
            row["file"]: (file, row) for file in files if file.settings == settings for row in file.rows
        }
        if num_others := sum(file.settings != settings for file in files):
            log.warning(
                "%s: %d of %d files not used: packed with other settings or by other code",
                folder,
                num_others,
                len(files),
            )

    def decode(self, paths: Sequence[Path], params: PreprocessParams) -> Iterator[DecodedImage]:
        """As `decode_images`, which decodes the images that are not packed.

        Raises:
            UserError: as `decode_images`, or a packed image is damaged.
        """
        if not self._rows:
            yield from decode_images(paths, params)
            return
        found = [self._find(path) for path in paths]
        rest = [path for path, place in zip(paths, found, strict=True) if place is None]
        log.info("%d of %d images are packed already", len(paths) - len(rest), len(paths))
        with closing(decode_images(rest, params)) as decoded:
            for place in found:
                if place is None:
                    yield next(decoded)
                else:
                    file, row = place
                    yield file.image(row)

    def _find(self, path: Path) -> tuple["_PackedFile", dict[str, Any]] | None:
        """The packed file that has an image file, and its row there."""
        try:
            return self._rows.get(sha256(path))
        except OSError:  # decode_images says why
            return None


class _PackedFile:
    """A packed file whose table has been read and checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tensors = cast(Any, safe_open(path, "np"))  # its methods have no types
            table = self._tensors.get_tensor("table").tobytes()
            digest = (self._tensors.metadata() or {}).get("sha256")
        except SafetensorError as error:
            raise self._damaged(str(error)) from None
        if hashlib.sha256(table).hexdigest() != digest:
            raise self._damaged("its table does not match its SHA-256")
        content = json.loads(table)
        self.settings: dict[str, Any] = content["settings"]
        self.rows: list[dict[str, Any]] = content["rows"]

    def image(self, row: dict[str, Any]) -> DecodedImage:
        """The image of a row.

        Raises:
            UserError: it is damaged.
        """
        digest = bytes.fromhex(row["file"])
        if "reason" in row:
            return DecodedImage(row["reason"], digest)
        start, stop = row["place"]
        content = self._tensors.get_slice("images")[start:stop].tobytes()
        if zlib.crc32(content) != row["crc32"]:
            raise self._damaged(f"the image with the SHA-256 {row['file']} does not match its CRC-32")
        dhash = None if row["dhash"] is None else bytes.fromhex(row["dhash"])
        height, width = row["size"]
        original_height, original_width = row["original_size"]
        packed = PackedImage(
            content,
            (height, width),
            (original_height, original_width),
            row["orientation"],
            row["reencoded"],
            Fingerprint(dhash, bytes.fromhex(row["samples"])),
        )
        return DecodedImage(packed, digest)

    def _damaged(self, what: str) -> UserError:
        return UserError(f"{self.path}: damaged: {what}; delete this file, and its images are decoded again")


def _row(image: DecodedImage, spool: Spool) -> dict[str, Any]:
    """The row of an image, whose content goes to the spool."""
    packed, file = image.packed, image.digest.hex()
    if isinstance(packed, str):
        return {"file": file, "reason": packed}
    place, fingerprint = spool.add(packed.content), packed.fingerprint
    return {
        "file": file,
        "place": [place.start, place.stop],
        "crc32": zlib.crc32(packed.content),
        "size": packed.size,
        "original_size": packed.original_size,
        "orientation": packed.orientation,
        "reencoded": packed.reencoded,
        "dhash": None if fingerprint.dhash is None else fingerprint.dhash.hex(),
        "samples": fingerprint.samples.hex(),
    }


def _settings(params: PreprocessParams) -> dict[str, Any]:
    """All that decides what becomes of an image file."""
    code = [sha256(Path(__file__).with_name(f"{name}.py")) for name in CODE]
    return {
        "format": PACKED_FORMAT,
        "max_side": params.max_side,
        "jpeg_quality": params.jpeg_quality,
        "code": hashlib.sha256("\n".join(code).encode()).hexdigest(),
        "pillow": PIL.__version__,
    }
