"""Decoded images kept in memory, shared by the worker processes that load them."""

import mmap
import os
import weakref
from collections.abc import Iterator
from itertools import accumulate
from multiprocessing import get_context
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd.errors import UserError
from ssd.loading.tensor_file import TensorFile

EMPTY, WRITING, READY = 0, 1, 2
"""States of an image's place."""

MARGIN = 0.2
"""Share of the free memory that is left to the network, its optimizer and the workers."""


class DecodedCache:
    """The decoded images of a split, filled as they are first used.

    The memory is a file without a name and a place: worker processes get it as they start and fill it for
    each other, and a container's small /dev/shm does not matter.

    Args:
        file: the split. All of its images have a place; memory is taken as places are filled.
        num_processes: training processes on this machine, each of which has a cache of its own.

    Attributes:
        num_bytes: of all images.

    Raises:
        UserError: the memory that is free does not hold them.
    """

    def __init__(self, file: TensorFile, num_processes: int = 1) -> None:
        self.sizes: list[tuple[int, int]] = [(height, width) for height, width in file.sizes.tolist()]
        self.offsets = [0, *accumulate(3 * height * width for height, width in self.sizes)]
        self.num_bytes = self.offsets[-1]
        _check_fits(self.num_bytes * num_processes, file.path)
        # Whoever sees a state under the lock sees all that was written before it was set.
        self._lock = get_context("forkserver").Lock()
        memory = os.memfd_create("decoded-images")
        os.ftruncate(memory, max(self.num_bytes + len(file), 1))
        self._map(memory)

    def _map(self, memory: int) -> None:
        """Map a file: the pixels, uint8 [num_bytes], then the state of each image, uint8 [N]."""
        weakref.finalize(self, os.close, memory)
        self._memory = memory
        mapped = torch.frombuffer(mmap.mmap(memory, 0), dtype=torch.uint8)
        self._pixels, self._states = mapped[: self.num_bytes], mapped[self.num_bytes :]

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("_pixels", "_states")}
        return {**kept, "_memory": DupFd(self._memory)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        memory = state.pop("_memory").detach()
        self.__dict__.update(state)
        self._map(memory)

    def get(self, index: int) -> Tensor | None:
        """Image `index`, uint8 [3, H, W], the cache's own memory; None if it is not there yet."""
        with self._lock:
            ready = self._states[index] == READY
        return self._place(index) if ready else None

    def put(self, index: int, image: Tensor) -> None:
        """Keep image `index`, uint8 [3, H, W], unless another process has done so or is about to."""
        with self._lock:
            if self._states[index] != EMPTY:
                return
            self._states[index] = WRITING
        self._place(index).copy_(image)
        with self._lock:
            self._states[index] = READY

    def _place(self, index: int) -> Tensor:
        """Where image `index` is, pixel by pixel: the order that decoding gives and resizing takes."""
        height, width = self.sizes[index]
        pixels = self._pixels[self.offsets[index] : self.offsets[index + 1]]
        return pixels.view(height, width, 3).permute(2, 0, 1)


def _check_fits(num_bytes: int, path: Path) -> None:
    free = free_memory()
    if num_bytes > free * (1 - MARGIN):
        raise UserError(
            f"the images of {path} take {num_bytes / 2**30:.2f} GiB decoded, of "
            f"{free / 2**30:.2f} GiB free; set it to none, or lower preprocess.max_side",
            key="train.cache",
        )


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: of the machine, and of the container it is in.

    Args:
        root: where proc/ and sys/ are.

    Raises:
        UserError: this system is not Linux and does not tell.
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():
        raise UserError("ram needs Linux, which tells how much is free; set it to none", key="train.cache")
    available = _table(meminfo)["MemAvailable:"] * 1024
    return max(min([available, *_group_limits(root)]), 0)


def _group_limits(root: Path) -> Iterator[int]:
    """Bytes left in each control group that holds this process, version 1 or 2, from the inside out."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage, cached = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        top = root / "sys/fs/cgroup" / base
        inner = top / path.lstrip("/")
        # Inside a container the path may be the host's; its own limit is then at the top.
        for folder in [inner, *inner.parents]:
            if (folder / limit).exists() and (text := (folder / limit).read_text().strip()) != "max":
                used = int((folder / usage).read_text()) - _table(folder / "memory.stat")[cached]
                yield int(text) - used
            if folder == top:
                break


def _table(path: Path) -> dict[str, int]:
    """The numbers of a file of lines `name number ...`."""
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines())}
