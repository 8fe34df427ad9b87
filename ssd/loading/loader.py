"""Worker processes that load batches, forked from a process that has no threads.

A training process has threads of its own (autograd's, those of torch.distributed) that take Python's locks at
any moment. A fork at the wrong one leaves the lock taken in the child for ever: with CPython 3.11 workers
have been seen to hang before their first line. So workers come from multiprocessing's fork server, which is
started once, imports torch once, and has a single thread.
"""

import multiprocessing
import os
import signal
from multiprocessing import forkserver

from torch.utils.data import DataLoader

from ssd.loading.batches import EpochBatches
from ssd.loading.dataset import DetectionDataset, Sample, collate

TIMEOUT_SECONDS = 600
"""How long a batch may take a worker; then the loader raises RuntimeError instead of waiting for ever."""

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def make_loader(
    dataset: DetectionDataset, sampler: EpochBatches, workers: int, *, pin_memory: bool = False
) -> DataLoader[Sample]:
    """A loader that gives a `Batch` at a time, as often as it is asked to go over its data.

    Args:
        dataset, sampler: what is loaded; set the sampler's attributes before each pass.
        workers: processes, of one thread each, which live as long as the loader; 0 loads in this process.
        pin_memory: copy batches to memory from which a GPU takes them without waiting.
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
        worker_init_fn=_set_apart,
        multiprocessing_context="forkserver" if workers > 0 else None,
        timeout=TIMEOUT_SECONDS if workers > 0 else 0,
    )


def _start_fork_server() -> None:
    """Start it unless it runs. It ends with this process, but not by a signal to the process group.

    Ctrl-C and a launcher's SIGTERM go to the whole group; a training that saves first still needs its
    workers.
    """
    multiprocessing.set_forkserver_preload([__name__])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_apart(worker: int) -> None:
    """Keep signals to the process group from workers, too, but let the loader end them."""
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
