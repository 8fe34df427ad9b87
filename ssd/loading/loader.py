"""Data loading workers, forked from a process without threads.

A training process has threads (of autograd and torch.distributed) that may hold one of Python's locks at any
moment. If the process forks then, the child's copy of the lock is never released: with CPython 3.11, 5 of
9000 workers hung in the fork itself (in _PyThreadState_DeleteExcept, at the lock of all thread states), none
of 3000 that a fork server made. Therefore workers are forked by multiprocessing's fork server, which is
started once, imports torch once, and has a single thread.
"""

import multiprocessing
from multiprocessing import forkserver

from torch.utils.data import DataLoader

from ssd.interrupt import become_worker, blocked_signals
from ssd.loading.batches import EpochBatches
from ssd.loading.dataset import DetectionDataset, Sample, collate

TIMEOUT_SECONDS = 600
"""Timeout of a worker per batch; after it the loader raises RuntimeError instead of waiting for ever."""


def make_loader(
    dataset: DetectionDataset, sampler: EpochBatches, workers: int, *, pin_memory: bool = False
) -> DataLoader[Sample]:
    """A loader that yields one `Batch` at a time and can be iterated any number of times.

    Args:
        dataset, sampler: what is loaded; set the sampler's attributes before each pass.
        workers: processes, of one thread each, which live as long as the loader; 0 loads in this process.
        pin_memory: copy batches to pinned memory, from which copies to a GPU are asynchronous.
    """
    if workers > 0:
        _start_fork_server()
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        multiprocessing_context="forkserver" if workers > 0 else None,
        timeout=TIMEOUT_SECONDS if workers > 0 else 0,
    )


def _start_fork_server() -> None:
    """Start the fork server unless it runs. It ends with this process, but blocks SIGTERM and SIGINT.

    Ctrl-C and a launcher's SIGTERM go to the whole process group; a training that first saves a checkpoint
    still needs its workers.
    """
    multiprocessing.set_forkserver_preload([__name__])
    with blocked_signals():
        forkserver.ensure_running()


def _start_worker(worker: int) -> None:
    """Make it end with the training, which starts and ends it.

    PyTorch's own watch compares the id of the parent process, which here is the fork server. That lives as
    long as its workers do, so nobody would notice a training that was killed.
    """
    become_worker()
