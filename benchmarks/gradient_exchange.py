"""Training steps of two processes: gradients exchanged beside the backward pass, after it, and not at all.

By itself, on two machines: `torchrun ... -m benchmarks.gradient_exchange`, with README.md's options; rank 0
prints the line of the table.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from benchmarks.input_pipeline import augment_params
from benchmarks.results import Candidate, Result, Row, make_result
from benchmarks.table import line
from benchmarks.torchvision_ssd import SIDE, our_model
from benchmarks.training_step import BACKBONE, LR, make_data, train_params
from ssd.hardware import choose_hardware
from ssd.processes.launch import launch
from ssd.processes.world import World, exit_now, joined_world
from ssd.training.step import TrainStep

BATCH_SIZE = 2  # per process
WARMUP, RUNS = 2, 7

Hook = Callable[..., Future[Tensor]]
"""Of DistributedDataParallel, for a state and a bucket of gradients."""


def run() -> Result:
    """Time the steps in two processes on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "timings.json"
        code = launch(["-m", "benchmarks.gradient_exchange", str(path)], 2, restarts=0)
        assert code == 0, "a process has failed, see above"
        return result(json.loads(path.read_text()), 2, gradient_bytes())


def result(seconds: dict[str, list[float]], num_processes: int, num_bytes: int) -> Result:
    """Rows of medians: the trainer's own step against the step with the exchange after the backward pass."""
    alone, beside, after = (median(seconds[name]) for name in ("none", "beside", "after"))
    row = Row(
        what=f"training step, {num_processes} processes, {BACKBONE}, {SIDE} pixels, batch {BATCH_SIZE} each, "
        "gradients exchanged after the backward pass",
        unit="s",
        ours=beside,
        peer=after,
        ratio=after / beside,
        notes=f"{num_bytes / 1e6:.0f} MB per step; without exchange {1000 * alone:.0f} ms: it takes "
        f"{1 - alone / beside:.0%} of a step, after the backward pass {1 - alone / after:.0%}",
    )
    settings = {
        "backbone": BACKBONE,
        "input side": SIDE,
        "batch per process": BATCH_SIZE,
        "processes": num_processes,
        "precision": "bf16 autocast, gradients float32",
        "bytes of gradients": num_bytes,
        "backend": "gloo",
    }
    return make_result(
        "gradient_exchange", settings, {k: Candidate(v, None) for k, v in seconds.items()}, [row]
    )


def gradient_bytes() -> int:
    """Of the float32 gradients of all parameters."""
    return sum(4 * p.numel() for p in our_model(BACKBONE).parameters() if p.requires_grad)


def take_turns(world: World) -> dict[str, list[float]]:
    """Seconds of each timed step, by when gradients are exchanged; the variants alternate step by step."""
    steps = {
        "none": stepper(world, at_once),
        "beside": stepper(world, None),
        "after": stepper(world, at_the_end()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARMUP + RUNS):
        for name, step in steps.items():
            world.barrier()
            start = time.perf_counter()
            step()
            if turn >= WARMUP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def stepper(world: World, hook: Hook | None) -> Callable[[], Tensor]:
    """A step of the trainer, whose exchange of gradients `hook` replaces; None leaves it as it is."""
    params = train_params(device="cpu")
    hardware = choose_hardware(params.device, params.precision)
    train = TrainStep(our_model(BACKBONE), params, augment_params(policy="none"), hardware, world)
    if hook is not None:
        assert isinstance(train.network, DistributedDataParallel)
        train.network.register_comm_hook(None, hook)
    batch = make_data(BATCH_SIZE).batch
    return lambda: train(batch, epoch=0, index=0, lr=LR)


def at_once(state: None, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
    """No exchange: each process keeps its own gradients."""
    future: Future[Tensor] = Future()
    future.set_result(bucket.buffer())
    return future


def at_the_end() -> Hook:
    """The exchange of the same buckets, but of all of them when the last one is ready."""
    waiting: list[tuple[Tensor, Future[Tensor]]] = []

    def hook(state: None, bucket: dist.GradBucket) -> Future[Tensor]:  # type: ignore[name-defined]
        future: Future[Tensor] = Future()
        waiting.append((bucket.buffer(), future))
        if bucket.is_last():
            works = [
                dist.all_reduce(buffer.div_(dist.get_world_size()), async_op=True) for buffer, _ in waiting
            ]
            for work, (buffer, done) in zip(works, waiting, strict=True):
                assert work is not None, "of this process group"
                work.wait()
                done.set_result(buffer)
            waiting.clear()
        return future

    return hook


def main(path: Path | None) -> None:
    """One of the processes; rank 0 writes the timings, or without a path prints what they say."""
    with joined_world("cpu") as world:
        seconds = take_turns(world)
        if world.is_main and path:
            path.write_text(json.dumps(seconds))
        elif world.is_main:
            print(line(result(seconds, world.size, gradient_bytes()).rows[0]), flush=True)
    exit_now(0)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
