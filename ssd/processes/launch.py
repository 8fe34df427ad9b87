"""Launcher of several processes on one machine: starts, stops and, after a failure, restarts all of them."""

import logging
import os
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ssd.errors import UserError
from ssd.interrupt import GRACE_SECONDS, STOP_SIGNALS, StopSignal
from ssd.processes.child import ERRORS, LAUNCHER, first_error

log = logging.getLogger(__name__)

USER_ERROR, STOPPED = 2, 130
"""The exit codes of stages that end with a UserError, and that were stopped by a signal."""

FATAL_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
"""Signals of a process's own failure. After another's failure it gets SIGTERM or SIGABRT (from torch)."""


def num_processes(devices: int | Literal["auto"], device: torch.device) -> int:
    """The number of processes that `train.devices` requests.

    Args:
        devices: auto is one process per GPU that torch sees, or one process on a CPU.
        device: the training device.

    Raises:
        UserError: more processes than GPUs are requested.
    """
    if device.type == "cpu":
        return 1 if devices == "auto" else devices
    num_gpus = torch.cuda.device_count()
    if devices == "auto":
        return num_gpus
    if devices > num_gpus:
        raise UserError(
            f"found {devices}, but torch sees {num_gpus} GPUs; allowed here: auto, 1 to {num_gpus}",
            key="train.devices",
        )
    return devices


def launch(
    arguments: Sequence[str], num_processes: int, restarts: int, stop: StopSignal | None = None
) -> int:
    """Run `python *arguments` in several processes under torch's launcher, until all have ended.

    Each must run inside `ssd.processes.world.joined_world`. If one fails, the others are stopped, and all are
    restarted, up to `restarts` times, unless the failure is a UserError. SIGTERM and Ctrl-C are forwarded
    once; then the processes have GRACE_SECONDS to save and exit (30 with torch before 2.12). If this
    process is killed, they stop by themselves.

    The terminal shows the output of rank 0 as if it ran alone and, of a failure, only the first error.

    Args:
        arguments: of the Python interpreter, such as ("-m", "stages.train").
        num_processes: on this machine.
        restarts: largest number of restarts after failures.
        stop: told of the signals that are forwarded, if given.

    Returns:
        The exit code: 0, STOPPED, or that of the process that failed first (128 + the signal if one killed
        it).

    Raises:
        UserError: raised by one of the processes.
    """
    for attempt in range(restarts + 1):
        with tempfile.TemporaryDirectory(prefix="ssd-launch-") as folder:
            code = _attempt(arguments, num_processes, Path(folder), stop or StopSignal())
        if code in (0, USER_ERROR, STOPPED):
            break
        if attempt < restarts:
            log.warning("restarting from the last checkpoint (%d of %d)", attempt + 1, restarts)
    return code


def _attempt(arguments: Sequence[str], num_processes: int, folder: Path, stop: StopSignal) -> int:
    """Run all processes once; return their exit code. Raises the UserError of a process."""
    settings = {
        LAUNCHER: str(os.getpid()),
        ERRORS: str(folder),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads_per_process(num_processes)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_SECONDS),
        # Else gloo listens where the host's name resolves to, perhaps a network, without any password.
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME") or _loopback(),
    }
    try:
        with _environment(settings), _forwarded_signals(stop), _quiet_torch():
            elastic_launch(_config(num_processes, folder), sys.executable)(*arguments)
    except SignalException:
        return _exit_code([], num_processes, folder)
    except ChildFailedError as error:
        return _exit_code(list(error.failures.values()), num_processes, folder)
    return 0


def _config(num_processes: int, folder: Path) -> LaunchConfig:
    # max_restarts=0: torch's own restarts would repeat a UserError and reuse the old rendezvous address.
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle="",  # see _forwarded_signals
        logs_specs=DefaultLogsSpecs(str(folder), dict.fromkeys(range(1, num_processes), Std.ERR)),
    )


def _exit_code(failures: Sequence[ProcessFailure], num_processes: int, folder: Path) -> int:
    """Log why the processes ended early; return the exit code. Raises the UserError of a process.

    Args:
        failures: in the order in which they were detected; none if all were stopped by a signal.
        num_processes: of the attempt.
        folder: of the attempt.
    """
    killed = [f for f in failures if -f.exitcode in FATAL_SIGNALS]
    # Half a minute after a failure, the launcher itself kills the processes that are still running.
    killed = [f for f in killed if f.timestamp < failures[0].timestamp + 20]
    for f in killed:
        log.error("process %d of %d was killed (%s)", f.local_rank, num_processes, f.signal_name())
    if killed:
        return 128 - killed[0].exitcode
    error = first_error(folder)
    if error is not None:
        if error.kind == "user":
            raise error.as_user_error()
        if not failures:
            cause = error.text.strip().splitlines()[-1]
            log.warning(
                "process %d of %d was in a step when the others stopped, and could not save a checkpoint "
                "(%s); the next run resumes from the previous one",
                error.rank,
                num_processes,
                cause,
            )
            return STOPPED
        if error.kind == "lost":
            log.error("%s", error.text)
        else:
            log.error("process %d of %d failed:\n%s", error.rank, num_processes, error.text)
        return 1
    if not failures:
        return STOPPED
    code, rank = failures[0].exitcode, failures[0].local_rank
    if rank > 0:  # stderr of rank 0 has been shown on the terminal
        texts = [path.read_text(errors="replace") for path in folder.glob(f"*/*/{rank}/stderr.log")]
        log.error("%sprocess %d of %d ended with exit code %d", "".join(texts), rank, num_processes, code)
    return code if code > 0 else 128 - code


def _loopback() -> str:
    """The name of the loopback interface: lo on Linux, lo0 on macOS."""
    return next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))


def threads_per_process(num_processes: int) -> int:
    """Threads per process, so that all cores are used and none is oversubscribed."""
    num_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, num_cores // num_processes)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes started inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _forwarded_signals(stop: StopSignal) -> Iterator[None]:
    """Let torch's launcher forward both signals, as it does with handlers of its own, and tell `stop`."""

    def handle(signum: int, frame: FrameType | None) -> None:
        stop.received = True
        raise SignalException(f"received signal {signum}", signal.Signals(signum))

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Disable logging: torch's launcher logs each failure at length, and this module logs it afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
