"""The arithmetic of docs/scale.md."""

import pytest

from benchmarks.growth import Curve
from benchmarks.scale import DataSet, Rates, cores_to_feed, growth_table, stage_needs

RATES = Rates(
    download=100.0,
    keep=10.0,
    resize=5.0,
    read_image=0.01,
    read_box=0.001,
    pair=1e-4,
    decode=50.0,
    train=100.0,
    scaling=0.5,
    score=0.01,
    cores=4,
    gpus=2,
    core_hour=1.0,
    gpu_hour=10.0,
)
DATA = DataSet("small", 900, 100, 5000, 3, 6000.0, 40.0, resized=False, epochs=2)


def test_each_stage_takes_its_work_over_the_rate() -> None:
    needs = {need.stage: need for need in stage_needs(DATA, RATES)}
    assert {stage: need.minutes for stage, need in needs.items()} == pytest.approx(
        {"download": 1.0, "preprocess": (25 + 10 + 5 + 9) / 60, "train": 18 / 60, "evaluate": (1 + 3) / 60}
    )
    assert needs["preprocess"].stored == 40_000
    # 18 seconds of four cores and two GPUs.
    assert needs["train"].dollars == pytest.approx(18 / 3600 * 24)


def test_larger_images_are_packed_at_the_rate_of_resizing() -> None:
    large = DataSet("large", 900, 100, 5000, 3, 6000.0, 40.0, resized=True, epochs=2)
    assert stage_needs(large, RATES)[1].minutes == pytest.approx((50 + 10 + 5 + 9) / 60)


def test_the_cores_decode_what_the_gpus_train() -> None:
    assert cores_to_feed(RATES) == 2.0


def test_a_curve_is_a_line_of_the_table() -> None:
    line = growth_table([Curve("scoring", "images", [0.001, 0.003, 0.01], 1.0, [5.0, 6.4, 10.0])])
    assert line.splitlines()[-1] == "| scoring | images | 1 ms | 3 ms | 10 ms | 1.00 | 5 / 6 / 10 MiB |"
