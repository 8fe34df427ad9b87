"""Random streams that depend on what they are for, and on nothing else."""

import zlib

import torch
from torch import Generator


def seeded(purpose: str, *key: int) -> Generator:
    """A generator on the CPU for one purpose and key, such as ("view", seed, epoch, index).

    Neither the order of calls nor the process matters, so the number of loader workers does not either;
    two purposes with the same key have streams of their own.
    """
    return torch.Generator().manual_seed(zlib.crc32(repr((purpose, *key)).encode()))
