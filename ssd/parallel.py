"""Runs a function over many items in several processes, in order."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

from ssd.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16  # items handed to a process at a time


def ordered_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str
) -> Iterator[Result]:
    """Yield `function(item)` of each item, in the order of `items`, with a progress bar on stderr.

    Args:
        function: of a module's top level, for it is pickled; what it raises is raised here.
        workers: processes; 0 is one a CPU core. One works in this very process.
        description: of the progress bar, and of the work in the error.

    Raises:
        UserError: a process was killed.
    """
    workers = min(workers or num_cores(), -(-len(items) // _CHUNK))
    if workers <= 1:
        results: Iterator[Result] = map(function, items)
    else:
        results = _pool_map(function, items, workers, description)
    yield from tqdm(results, description, total=len(items), unit="image", disable=None)


def num_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pool_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str
) -> Iterator[Result]:
    # Spawned processes inherit no threads or locks, whatever the caller has running.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield from pool.map(function, items, chunksize=_CHUNK)
    except BrokenProcessPool:
        raise UserError(
            f"{description}: one of {workers} processes was killed, perhaps for want of memory; "
            "run again, with fewer if it was"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
