"""The benchmark of the exchange of gradients: what its variants exchange, and what it says of the timings."""

from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.gradient_exchange import at_once, at_the_end, result
from benchmarks.table import line


@dataclass(frozen=True)
class Bucket:
    """What a hook of DistributedDataParallel gets."""

    values: Tensor
    last: bool

    def buffer(self) -> Tensor:
        return self.values

    def is_last(self) -> bool:
        return self.last


class Done:
    def wait(self) -> None: ...


def test_all_buckets_are_exchanged_when_the_last_one_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged: list[Tensor] = []

    def all_reduce(values: Tensor, async_op: bool) -> Done:
        exchanged.append(values)
        values *= 2  # the other process has the same gradients
        return Done()

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    hook = at_the_end()
    for _ in range(2):  # steps
        buckets = [Bucket(torch.tensor([float(number)]), number == 2) for number in range(3)]
        futures = [hook(None, bucket) for bucket in buckets[:2]]
        assert not any(future.done() for future in futures)
        futures.append(hook(None, buckets[2]))
        assert [future.value().item() for future in futures] == [0, 1, 2], "the mean over both"
    assert len(exchanged) == 6


def test_without_exchange_a_process_keeps_its_gradients() -> None:
    values = torch.ones(1)
    assert at_once(None, Bucket(values, True)).value() is values


def test_the_shares_are_of_the_step_with_that_exchange() -> None:
    seconds = {"none": [0.8] * 3, "beside": [1.0] * 3, "after": [1.6] * 3}
    row = result(seconds, 2, 100_000_000).rows[0]
    assert row.ratio == pytest.approx(1.6)
    assert (
        "100 MB per step; without exchange 800 ms: it takes 20% of a step, after the backward pass 50%"
        in line(row)
    )
