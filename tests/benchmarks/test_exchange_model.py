"""The model of the exchange of gradients, at sizes that can be counted by hand."""

import re
from pathlib import Path

import pytest

from benchmarks.exchange_model import BUCKET_BYTES, exchange, ring_seconds

GBIT = 1e9 / 8
SCALE = Path(__file__).parents[2] / "docs/scale.md"
ROW = r"^\| .*?(\d+) images/s, (\d+) MB \| (\d+) \| (\d+) Gbit/s \| (.*) \|$"


def test_two_members_send_all_bytes_once_and_many_twice() -> None:
    """Each of two sends half, as a sum, and then the other half, as a result."""
    assert ring_seconds(100e6, 2, 100e6, latency=0) == 1
    assert ring_seconds(100e6, 1000, 100e6, latency=0) == pytest.approx(2, rel=2e-3)


def test_each_step_of_the_ring_has_its_latency() -> None:
    assert ring_seconds(0, 64, GBIT, latency=1e-5) == pytest.approx(126e-5)


def test_one_member_exchanges_nothing() -> None:
    assert ring_seconds(1e9, 1, GBIT, latency=1) == 0


@pytest.mark.parametrize("gbit", [1, 10, 100, 400])
def test_the_exposed_part_is_that_of_a_queue_of_buckets(gbit: int) -> None:
    """Bucket by bucket: each is ready at its time, and waits until those before it are done."""
    num_buckets, step = 4, 0.3
    found = exchange(num_buckets * BUCKET_BYTES, step, 8, gbit * GBIT, latency=1e-5)
    each, done = ring_seconds(BUCKET_BYTES, 8, gbit * GBIT, 1e-5), 0.0
    for number in range(num_buckets):
        done = max(done, (number + 1) / num_buckets * 2 / 3 * step) + each
    assert found.seconds == pytest.approx(num_buckets * each)
    assert found.exposed == pytest.approx(done - 2 / 3 * step)
    assert found.share == pytest.approx(found.exposed / (step + found.exposed))


def test_the_table_of_the_documentation_is_the_model_s() -> None:
    rows = re.findall(ROW, SCALE.read_text(), re.MULTILINE)
    assert len(rows) == 12
    for rate, megabytes, gpus, gbit, figures in rows:
        step = 32 / int(rate)
        found = exchange(int(megabytes) * 1e6, step, int(gpus), int(gbit) * GBIT, latency=1e-5)
        times = [f"{1000 * seconds:.1f} ms" for seconds in (step, found.seconds, found.exposed)]
        shares = [f"{share:.0%}" for share in (found.share, found.seconds / (step + found.seconds))]
        assert figures == " | ".join([*times, *shares])
