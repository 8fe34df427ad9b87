"""The processes of a training: who this one is, and what they tell each other."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ssd.errors import UserError
from ssd.processes.child import end_with_launcher, report_errors

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others: for the slowest to start, and at every exchange."""


@dataclass(frozen=True)
class World:
    """This process among those that train together; the default is a process alone.

    Every process must make the same calls in the same order. One that waits longer than `TIMEOUT` for
    another, or whose partner is gone, raises RuntimeError.

    rank: 0..size-1 over all machines; size: number of processes; local_rank: number on this machine,
    which is also the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and speaks."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes, in place; returns it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, on every process.

        They travel pickled, over the CPU: small Python objects, or tensors on the CPU.
        """
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every place has been filled

    def broadcast(self, value: T) -> T:
        """The main process's value, on every process; see `gather`."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def barrier(self) -> None:
        """Wait until every process is here. What a GPU still computes is not waited for."""
        self.gather(None)


def launched() -> bool:
    """Whether a launcher (torchrun, a Kubeflow PyTorchJob) started this process as one of a training."""
    return "RANK" in os.environ or "WORLD_SIZE" in os.environ


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the processes that the environment tells of, and part from them at the end. Main thread only.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are what torchrun and a Kubeflow PyTorchJob
    set (the latter leaves out LOCAL_RANK: one process a machine). Without them, and for a single
    process, the world is this process and torch.distributed is not touched.

    At a normal end all processes wait for each other; after an exception this one leaves at once, and
    the others find it gone.

    Args:
        device: `train.device`: auto, cpu or cuda. With CUDA the process's GPU becomes the current one.

    Raises:
        UserError: the variables do not belong together, there is no such GPU, or the others are not met.
        SystemExit: instead of any error under `ssd.processes.launch`, see `ssd.processes.child`.
    """
    end_with_launcher()
    with report_errors():
        world = read_world(os.environ)
        cuda = device != "cpu" and torch.cuda.is_available()
        if cuda:
            _take_gpu(world.local_rank)
        if world.size == 1:
            yield world
            return
        # An error is handed over before the others lose this process and fail in turn.
        with _group(world, "cpu:gloo,cuda:nccl" if cuda else "gloo"), report_errors():
            yield world


def read_world(environment: Mapping[str, str]) -> World:
    """The world that the variables of a launcher describe; a process alone where there are none.

    Raises:
        UserError: a variable is missing, is not a number, or is out of range.
    """
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        return World()
    size = _number(environment, "WORLD_SIZE", lowest=1)
    rank = _number(environment, "RANK", below=size)
    local_rank = _number(environment, "LOCAL_RANK", below=size) if "LOCAL_RANK" in environment else 0
    if size > 1:
        _number(environment, "MASTER_PORT", lowest=1, below=65536)
        if not environment.get("MASTER_ADDR"):
            raise _missing("MASTER_ADDR")
    return World(rank, size, local_rank)


def exit_now(code: int) -> NoReturn:
    """End the process now, without the interpreter's own clean-up.

    For the end of a process that had partners: threads of torch.distributed that are still running can
    abort the interpreter's exit, and a finished training would count as failed.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _take_gpu(number: int) -> None:
    num_gpus = torch.cuda.device_count()
    if number >= num_gpus:
        raise UserError(
            f"environment: LOCAL_RANK: found {number}, but torch sees {num_gpus} GPUs; "
            "start at most one process a GPU"
        )
    torch.cuda.set_device(number)


@contextmanager
def _group(world: World, backend: str) -> Iterator[None]:
    """torch's default process group."""
    try:
        with _deadly_signals():
            dist.init_process_group(backend, timeout=TIMEOUT, rank=world.rank, world_size=world.size)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"environment: MASTER_ADDR: process {world.rank} of {world.size} does not meet the others at "
            f"{where} ({str(error).splitlines()[0]}); look whether all of them run and reach that address"
        ) from error
    group = dist.group.WORLD
    assert group is not None, "it has just been made"
    try:
        yield
        world.barrier()
    except BaseException:
        # Without this, destroying it waits for work that the others may never finish.
        group.abort()
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def _deadly_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the process, which waits where Python cannot handle them."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _number(environment: Mapping[str, str], name: str, *, lowest: int = 0, below: int | None = None) -> int:
    text = environment.get(name)
    if text is None:
        raise _missing(name)
    allowed = f"a number from {lowest}" if below is None else f"a number from {lowest} to {below - 1}"
    if not text.isdecimal() or int(text) < lowest or (below is not None and int(text) >= below):
        raise UserError(f"environment: {name}: found {text!r}; allowed: {allowed}")
    return int(text)


def _missing(name: str) -> UserError:
    return UserError(
        f"environment: {name}: missing; several processes need RANK, WORLD_SIZE, MASTER_ADDR and "
        "MASTER_PORT, a process alone none of them"
    )
