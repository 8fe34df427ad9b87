"""From sources to batches of pictures: images are decoded in threads while the network runs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import torch

from ssd.fetch import fetch_bytes
from ssd.inference.sources import Picture, Source, Unread
from ssd.inference.video import read_frames
from ssd.parallel import num_cores
from ssd.prepare.images import ImageError, decode_rgb

MAX_BYTES = 256 * 2**20
"""Of an image file."""

MAX_PIXELS = 32 * 2**20
"""Of a batch, or it is one picture: the detector takes float32, and the network's first maps are as large."""

MAX_AHEAD = 8
"""Images that are decoded before they are asked for, whatever the size of a batch: photos are large."""

URL_SECONDS = 60.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_pictures(sources: Sequence[Source], every: int, num_ahead: int) -> Iterator[Picture | Unread]:
    """The pictures of all sources, in their order.

    Args:
        every: of a video, each `every`-th frame, from the first.
        num_ahead: images that are decoded before they are asked for, up to MAX_AHEAD.
    """
    for still, group in groupby(sources, lambda source: source.kind in ("image", "url")):
        if still:
            yield from read_ahead(read_image, group, min(num_ahead, MAX_AHEAD))
        else:
            for source in group:
                yield from read_frames(source, every)


def read_image(source: Source) -> Picture | Unread:
    """An image file or URL as shown: turned by its EXIF orientation; of several frames the first."""
    try:
        if source.kind == "url":
            content = fetch_bytes(source.place, MAX_BYTES, URL_SECONDS)
        else:
            path = Path(source.place)
            if (size := path.stat().st_size) > MAX_BYTES:
                return Unread(source, f"has {size:,} bytes; allowed: up to {MAX_BYTES:,}")
            content = path.read_bytes()
        # A copy: that of the decoder is read-only.
        return Picture(source, torch.tensor(decode_rgb(content)).permute(2, 0, 1))
    except ImageError as error:
        return Unread(source, str(error))
    except MemoryError:
        return Unread(source, "too little memory to decode it")
    except OSError as error:
        return Unread(source, error.strerror or str(error))


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item], num_ahead: int) -> Iterator[Result]:
    """Yield `function(item)` of each item, in their order; threads work on the next `num_ahead` ones."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(min(num_ahead, num_cores()))
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batches(pictures: Iterable[Picture], num_images: int) -> Iterator[list[Picture]]:
    """Lists of at most `num_images` pictures and MAX_PIXELS pixels, or of one picture."""
    batch: list[Picture] = []
    num_pixels = 0
    for picture in pictures:
        area = picture.image[0].numel()
        if batch and (len(batch) == num_images or num_pixels + area > MAX_PIXELS):
            yield batch
            batch, num_pixels = [], 0
        batch.append(picture)
        num_pixels += area
    if batch:
        yield batch
