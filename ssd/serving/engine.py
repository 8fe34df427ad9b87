"""One thread that owns a detector: images that arrive within a few milliseconds are one batch."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from ssd.inference.detector_file import DetectorFile
from ssd.inference.reading import MAX_PIXELS
from ssd.structures import Detections

WAIT_SECONDS = 0.005
"""The time that the first image of a batch waits for further ones: less than a network takes for one."""


@dataclass(frozen=True)
class _Item:
    """An image, uint8 RGB [3, H, W], and where its detections are awaited."""

    image: Tensor
    found: Future[Detections]

    @property
    def num_pixels(self) -> int:
        return self.image[0].numel()


class Engine:
    """Detections of single images from many threads, computed in batches by one.

    How many images may wait, its callers decide: each of them holds an image until it has an answer.

    Args:
        name: which tells it from other engines.
        detector: used by this engine's thread alone from now on.
        max_batch: images; a batch has at most MAX_PIXELS pixels, too, or it is one image.
        observe: told the number of images of each batch, in the engine's thread.
    """

    def __init__(
        self, name: str, detector: DetectorFile, max_batch: int, observe: Callable[[int], None]
    ) -> None:
        self.name = name
        self.detector = detector
        self._max_batch = max_batch
        self._observe = observe
        self._queue: queue.Queue[_Item | None] = queue.Queue()
        self._held: _Item | None = None  # the first of the next batch, which this one has no room for
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"detector {name}", daemon=True)
        # The first call of a network takes longer than all others.
        detector.detect([torch.zeros(3, 64, 64, dtype=torch.uint8)])
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether images are taken."""
        return not self._closed and self._thread.is_alive()

    def submit(self, image: Tensor) -> Future[Detections]:
        """Put an image, uint8 RGB [3, H, W], into a batch. A future that is cancelled in time costs nothing.

        Raises:
            RuntimeError: the engine is closed.
        """
        if self._closed:
            raise RuntimeError("the engine is closed")
        item = _Item(image, Future())
        self._queue.put(item)
        return item.found

    def close(self) -> None:
        """Take no further image; return when those that wait have their detections."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._next()) is not None:
            items = [item for item in self._gather(first) if item.found.set_running_or_notify_cancel()]
            if items:
                self._observe(len(items))
                self._detect(items)

    def _next(self) -> _Item | None:
        """What a batch begins with; None at the end."""
        held, self._held = self._held, None
        return held or self._queue.get()

    def _gather(self, first: _Item) -> list[_Item]:
        """It, and what arrives within WAIT_SECONDS of it or has waited already, up to MAX_PIXELS."""
        items = [first]
        num_pixels = first.num_pixels
        deadline = time.monotonic() + WAIT_SECONDS
        while len(items) < self._max_batch:
            try:
                item = self._queue.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                break
            if item is None:
                self._queue.put(None)  # the end comes after this batch
                break
            num_pixels += item.num_pixels
            if num_pixels > MAX_PIXELS:
                self._held = item
                break
            items.append(item)
        return items

    def _detect(self, items: Sequence[_Item]) -> None:
        try:
            found = self.detector.detect([item.image for item in items])
        except Exception as error:  # noqa: BLE001 (goes to who awaits it)
            if len(items) == 1:
                items[0].found.set_exception(error)
                return
            # What one image raises, or the size of the batch, does not concern the others.
            for item in items:
                self._detect([item])
            return
        for item, detections in zip(items, found, strict=True):
            item.found.set_result(detections)
