"""Runs a function over many items in several worker processes, in order."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

from ssd.errors import UserError
from ssd.interrupt import become_worker, blocked_signals

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16  # items per task of a worker process


def ordered_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str
) -> Generator[Result, None, None]:
    """Yield `function(item)` of each item, in the order of `items`, with a progress bar on stderr.

    Args:
        function: of a module's top level, because it is pickled; its exceptions are raised here.
        workers: number of worker processes; 0 is one per CPU core. With 1, this process does the work.
        description: of the progress bar, and of the work in the error message.

    Raises:
        UserError: a worker process was killed.
    """
    workers = min(workers or num_cores(), -(-len(items) // _CHUNK))
    if workers <= 1:
        results: Iterator[Result] = map(function, items)
    else:
        results = _pool_map(function, items, workers, description)
    yield from tqdm(results, description, total=len(items), unit="image", disable=None)


def num_cores() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pool_map(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str
) -> Iterator[Result]:
    # spawn, not fork: a forked process may deadlock on a lock that a thread of the caller holds.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=become_worker)
    try:
        with blocked_signals():
            results = pool.map(function, items, chunksize=_CHUNK)
        yield from results
    except BrokenProcessPool:
        raise UserError(
            f"{description}: one of {workers} worker processes was killed, perhaps out of memory; "
            "run again, with fewer workers if so"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
