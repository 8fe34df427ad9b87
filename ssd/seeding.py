"""Random generators seeded by purpose and key alone."""

import zlib

import torch
from torch import Generator


def seeded(purpose: str, *key: int) -> Generator:
    """A generator on the CPU for one purpose and key, such as ("view", seed, epoch, index).

    Its numbers depend neither on the order of calls nor on the process, nor therefore on the number of data
    loading workers; two purposes with the same key have different streams.
    """
    return torch.Generator().manual_seed(zlib.crc32(repr((purpose, *key)).encode()))
