"""In-memory cache of decoded images, shared by the data loading workers."""

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
"""States of an image in the cache."""

MARGIN = 0.2
"""Fraction of the free memory that is left to the network, its optimiser and the data loading workers."""


class DecodedCache:
    """The decoded images of a split, each cached at its first use.

    The memory is an anonymous file (memfd): data loading workers get its descriptor at their start and share
    what each of them decodes; it does not use /dev/shm, which is small in a container.

    Args:
        file: the split. Address space is reserved for all images; memory is allocated as they are cached.
        num_processes: training processes on this machine, each of which has a cache of its own.

    Attributes:
        num_bytes: of all decoded images.

    Raises:
        UserError: they do not fit into the free memory.
    """

    def __init__(self, file: TensorFile, num_processes: int = 1) -> None:
        self.sizes: list[tuple[int, int]] = [(height, width) for height, width in file.sizes.tolist()]
        self.offsets = [0, *accumulate(3 * height * width for height, width in self.sizes)]
        self.num_bytes = self.offsets[-1]
        _check_fits(self.num_bytes * num_processes, file.path)
        # A process that reads a state under the lock also sees all writes before it was set.
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
        """Image `index`, uint8 [3, H, W], the cache's own memory; None if it is not cached yet."""
        with self._lock:
            ready = self._states[index] == READY
        return self._place(index) if ready else None

    def put(self, index: int, image: Tensor) -> None:
        """Cache image `index`, uint8 [3, H, W], unless another process has cached it or is writing it."""
        with self._lock:
            if self._states[index] != EMPTY:
                return
            self._states[index] = WRITING
        self._place(index).copy_(image)
        with self._lock:
            self._states[index] = READY

    def _place(self, index: int) -> Tensor:
        """The memory of image `index`, channels last as in decoding and resizing: uint8 [3, H, W]."""
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
    """Bytes that this process can still allocate, limited by the machine and by its container.

    Args:
        root: where proc/ and sys/ are.

    Raises:
        UserError: there is no /proc/meminfo (this system is not Linux).
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():
        raise UserError("ram needs Linux, for /proc/meminfo; set it to none", key="train.cache")
    available = _table(meminfo)["MemAvailable:"] * 1024
    return max(min([available, *_group_limits(root)]), 0)


def _group_limits(root: Path) -> Iterator[int]:
    """Bytes left in each control group (cgroup v1 or v2) of this process, innermost first."""
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
