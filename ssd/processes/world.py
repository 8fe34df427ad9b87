"""Distributed training: rank and world size of this process, process group and collective operations."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ssd.errors import LostProcessError, UserError
from ssd.interrupt import StopSignal
from ssd.processes.child import end_with_launcher, report_errors
from ssd.processes.keepalive import keep_alive

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""Timeout of the process group: for all processes to start, and for every collective operation.

While rank 0 alone scores, saves and logs, the others wait for it: MLflow's client may take two minutes until
it gives up a server that hangs, and more with settings of the environment (`ssd.tracking.client.SETTINGS`).
"""


@dataclass(frozen=True)
class World:
    """Rank of this process and world size of a distributed training; the default is a single process.

    Every process must make the same calls in the same order. A call that waits longer than `TIMEOUT` for
    another process, or for one that has died, raises RuntimeError, which `exchanging` explains.

    rank: 0..size-1 over all machines; size: world size, the number of processes; local_rank: rank on this
    machine, which is also the index of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the one process (rank 0) that writes files and logs."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """All-reduce: replace `tensor` by its sum over all processes, in place; return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """All-gather: the values of all processes, by rank, on every process.

        They are pickled and sent over the CPU: for small Python objects and CPU tensors only.
        """
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every place has been filled

    def broadcast(self, value: T) -> T:
        """The value of rank 0, on every process; see `gather`."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def barrier(self) -> None:
        """Wait until every process has reached this call; does not wait for work queued on a GPU."""
        self.gather(None)

    @contextmanager
    def exchanging(self, where: Callable[[], str]) -> Iterator[None]:
        """Raise LostProcessError for a collective operation that fails in the block, DDP's own included.

        Args:
            where: what this process does, for the message; called after a failure.
        """
        try:
            yield
        except RuntimeError as error:
            reason = _reason(error)
            if reason is None:
                raise
            raise LostProcessError(
                f"process {self.rank} of {self.size}, {where()}: {reason}; the next run resumes from the "
                "last checkpoint"
            ) from error


def launched() -> bool:
    """Whether a launcher (torchrun, a Kubeflow PyTorchJob) started this process as part of a training.

    Raises:
        UserError: none did, although the variables of torchrun name several machines: a Kubeflow TrainJob
            sets no others, and each of its pods would train alone.
    """
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        return True
    machines = os.environ.get("PET_NNODES", "1")
    if machines.rpartition(":")[2] != "1":  # "2", or "1:2" where the number may change
        raise UserError(
            f"environment: PET_NNODES: found {machines!r}, but torchrun has not started this process, which "
            "would train alone; start it on each machine as `torchrun -m stages.train`"
        )
    return False


@contextmanager
def joined_world(device: str, stop: StopSignal | None = None) -> Iterator[World]:
    """Join the process group that the environment describes, and leave it at the end. Main thread only.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set by torchrun and a Kubeflow PyTorchJob
    (the latter omits LOCAL_RANK: one process per machine). Without them, and with a world size of 1, the
    world is this process alone and torch.distributed is not used.

    At a normal end all processes wait for each other; after an exception this one leaves at once, and the
    next collective operation of the others fails.

    Args:
        device: `train.device`: auto, cpu or cuda. With CUDA the process's GPU becomes the current one.
        stop: receives the signals of this process; None if it handles them in another way.

    Raises:
        UserError: the variables are inconsistent, there is no such GPU, or the others cannot be reached.
        SystemExit: instead of any error under `ssd.processes.launch`, see `ssd.processes.child`.
    """
    end_with_launcher(stop or StopSignal())
    with report_errors():
        world = read_world(os.environ)
        cuda = device != "cpu" and torch.cuda.is_available()
        if cuda:
            _select_gpu(world.local_rank)
        if world.size == 1:
            yield world
            return
        # The inner report_errors writes the error before this process leaves and the others fail in turn.
        with (
            world.exchanging(lambda: "ending"),
            _group(world, "cpu:gloo,cuda:nccl" if cuda else "gloo"),
            report_errors(),
            world.exchanging(lambda: "starting"),
        ):
            yield world


def read_world(environment: Mapping[str, str]) -> World:
    """The world that the variables of a launcher describe; a single process if there are none.

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
    """Exit the process now, without the interpreter's clean-up.

    For a process that was in a process group: threads of torch.distributed that are still running can
    abort the interpreter's exit, and a finished training would count as failed.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _reason(error: RuntimeError) -> str | None:
    """Why a collective operation failed, in words; None for any other error.

    gloo raises plain RuntimeError with the place in its sources; NCCL's errors have a type.
    """
    text = str(error)
    if isinstance(error, LostProcessError) or not (isinstance(error, dist.DistError) or "/gloo/" in text):
        return None
    if "Timed out" in text:
        minutes = TIMEOUT.total_seconds() / 60
        return f"no answer from another process for {minutes:g} min; it hangs, or its machine is out of reach"
    cause = text.splitlines()[0].partition("] ")[2].partition(". ")[0] or text.splitlines()[0]
    return f"another process has ended, or cannot be reached ({cause})"


def _hint(reason: str, world: World) -> str:
    """What to set where gloo of another machine has named a loopback address: it takes the host name's."""
    if "remote=[127." not in reason or os.environ.get("LOCAL_WORLD_SIZE", "") in ("", str(world.size)):
        return ""
    return ", and set GLOO_SOCKET_IFNAME to the network's interface, such as eth0, on each machine"


def _select_gpu(number: int) -> None:
    num_gpus = torch.cuda.device_count()
    if number >= num_gpus:
        raise UserError(
            f"environment: LOCAL_RANK: found {number}, but torch sees {num_gpus} GPUs; "
            "start at most one process per GPU"
        )
    torch.cuda.set_device(number)


@contextmanager
def _group(world: World, backend: str) -> Iterator[None]:
    """torch's default process group, inside the block."""
    try:
        with _default_signals():
            dist.init_process_group(backend, timeout=TIMEOUT, rank=world.rank, world_size=world.size)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).splitlines()[0]
        raise UserError(
            f"environment: MASTER_ADDR: process {world.rank} of {world.size} cannot connect to the others at "
            f"{where} ({reason}); check that all of them run and can reach that address{_hint(reason, world)}"
        ) from error
    group = dist.group.WORLD
    assert group is not None, "it has just been made"
    keep_alive()
    try:
        yield
        world.barrier()
    except BaseException:
        # Without abort, destroying the group may wait forever for operations that the others never finish.
        group.abort()
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def _default_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the process at once: it waits where Python runs no signal handlers."""
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
        "MASTER_PORT, a single process none of them"
    )
