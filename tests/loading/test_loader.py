"""Data loading workers: who forks them, and whom they outlive."""

import os
import threading

import psutil

from ssd.loading.batches import EpochBatches
from ssd.loading.dataset import DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile


def test_workers_are_forked_from_a_process_of_one_thread(shapes_file: TensorFile) -> None:
    """A thread of the process that forks may hold a lock, and then a worker hangs for ever."""
    ended = threading.Event()
    threading.Thread(target=ended.wait).start()
    loader = make_loader(
        DetectionDataset(shapes_file, 64), EpochBatches(range(4), 2, 64, seed=None), workers=2
    )
    batches = iter(loader)
    try:
        assert sorted(index for batch in batches for index in batch.indices) == [0, 1, 2, 3]
        workers = [psutil.Process(worker.pid) for worker in batches._workers]
        (server,) = {worker.ppid() for worker in workers}
        assert server != os.getpid()
        assert psutil.Process(server).num_threads() == 1
        assert all(os.getpgid(worker.pid) != os.getpgid(0) for worker in workers)
    finally:
        ended.set()
