"""How many pixels the images of all requests have together: what bounds the memory for them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Room for images, which requests share.

    Args:
        num_pixels: of all images together.
    """

    def __init__(self, num_pixels: int) -> None:
        self._free = num_pixels
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """The part of one request, which is free again after the block."""
        share = Share(self)
        try:
            yield share
        finally:
            with self._lock:
                self._free += share.num_pixels
                share.open = False


class Share:
    """What one request takes of the room."""

    def __init__(self, room: Room) -> None:
        self.num_pixels = 0
        self.open = True
        self._room = room

    def take(self, num_pixels: int) -> bool:
        """Take room for an image, in any thread; whether there is any.

        A decoder may come to it when nobody waits for the image any more: then there is none.
        """
        with self._room._lock:
            if not self.open or num_pixels > self._room._free:
                return False
            self._room._free -= num_pixels
            self.num_pixels += num_pixels
            return True
