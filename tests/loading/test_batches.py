"""Which images form a batch: shared out over processes, resumable, repeatable, rare classes more often."""

from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
from flagged_objects import Flagged, write_flagged
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.errors import UserError
from ssd.loading.batches import EpochBatches, repeat_factors, training_batches
from ssd.params import Params

counts = st.integers(0, 60)
worlds = st.integers(1, 4)


def indices(batches: EpochBatches) -> list[list[int]]:
    return [[key.index for key in batch] for batch in batches]


def flat(batches: list[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


@settings(max_examples=50, deadline=None)
@given(counts, st.integers(8, 20), worlds, st.integers(0, 3))
def test_processes_share_out_the_batches_of_one(num_images: int, size: int, world: int, epoch: int) -> None:
    ranks = [
        EpochBatches(range(num_images), size, 300, seed=3, rank=rank, world_size=world)
        for rank in range(world)
    ]
    alone = EpochBatches(range(num_images), size, 300, seed=3)
    for sampler in (alone, *ranks):
        sampler.epoch = epoch
    shares = [indices(sampler) for sampler in ranks]
    assert len({len(share) for share in shares}) == 1
    assert [len(sampler) for sampler in ranks] == [len(share) for share in shares]
    together = [sorted(chain(*batch)) for batch in zip(*shares, strict=True)]
    assert together == [sorted(batch) for batch in indices(alone)][: len(together)]
    assert sum(map(len, together)) == ranks[0].num_used > num_images - 2 * world
    assert all(len(batch) >= 2 for share in shares for batch in share)


@settings(max_examples=50, deadline=None)
@given(counts, st.integers(1, 20), worlds)
def test_evaluation_sees_every_image_once_over_all_processes(num_images: int, size: int, world: int) -> None:
    ranks = [
        EpochBatches(range(num_images), size, 300, seed=None, rank=rank, world_size=world)
        for rank in range(world)
    ]
    assert [len(sampler) for sampler in ranks] == [len(indices(sampler)) for sampler in ranks]
    for rank, sampler in enumerate(ranks):
        assert flat(indices(sampler)) == list(range(rank, num_images, world))
    assert ranks[0].num_used == num_images


def test_the_images_are_those_that_are_given_in_their_order_without_a_seed() -> None:
    assert indices(EpochBatches([5, 2, 9], 2, 300, seed=None)) == [[5, 2], [9]]
    assert sorted(flat(indices(EpochBatches([5, 2, 9], 3, 300, seed=0)))) == [2, 5, 9]


def test_a_trailing_batch_of_one_is_left_out_of_training_only() -> None:
    assert [len(batch) for batch in EpochBatches(range(7), 3, 300, seed=0)] == [3, 3]
    assert [len(batch) for batch in EpochBatches(range(8), 3, 300, seed=0)] == [3, 3, 2]
    assert [len(batch) for batch in EpochBatches(range(7), 3, 300, seed=None)] == [3, 3, 1]
    assert len(EpochBatches(range(1), 3, 300, seed=0)) == 0


def test_every_epoch_has_an_order_of_its_own_and_a_seed_repeats_it() -> None:
    sampler, again = EpochBatches(range(50), 10, 300, seed=1), EpochBatches(range(50), 10, 300, seed=1)
    first = indices(sampler)
    assert first == indices(again) != indices(EpochBatches(range(50), 10, 300, seed=2))
    assert sorted(flat(first)) == list(range(50))
    sampler.epoch = 1
    assert first != indices(sampler)


def test_start_goes_on_in_the_middle_of_the_epoch() -> None:
    sampler = EpochBatches(range(50), 8, 300, seed=1)
    sampler.side_of = lambda epoch, batch: 300 + batch
    whole = list(sampler)
    sampler.start = 4
    assert list(sampler) == whole[4:]
    assert len(sampler) == len(whole) == 7


def test_the_side_may_change_from_batch_to_batch() -> None:
    sampler = EpochBatches(range(6), 2, 300, seed=1)
    assert {key.side for batch in sampler for key in batch} == {300}
    sampler.epoch = 2
    sampler.side_of = lambda epoch, batch: 100 * epoch + batch
    assert [{key.side for key in batch} for batch in sampler] == [{200}, {201}, {202}]


def test_batches_too_small_for_batch_norm_are_an_error() -> None:
    with pytest.raises(UserError, match="train.batch_size: found 4 over 3 processes; allowed: from 6"):
        EpochBatches(range(50), 4, 300, seed=1, world_size=3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1, 9), min_size=1, max_size=40), st.integers(0, 5))
def test_weighted_images_come_as_often_as_their_weight_says(weights: list[float], seed: int) -> None:
    num_images = len(weights)
    sampler = EpochBatches(range(num_images), num_images + 1, 300, seed=seed, weights=torch.tensor(weights))
    keys = list(chain.from_iterable(sampler))
    seen = Counter(key.index for key in keys)
    assert len(keys) == sampler.num_used == (num_images if num_images > 1 else 0)
    for index, weight in enumerate(weights[: len(keys)]):
        expected = num_images * weight / sum(weights)
        assert abs(seen[index] - expected) < 1 + 1e-3
    assert len(set(keys)) == len(keys), "each showing of an image is augmented in a way of its own"


def test_expected_counts_are_met_over_epochs() -> None:
    sampler = EpochBatches(range(4), 8, 300, seed=0, weights=torch.tensor([1.0, 1.0, 1.0, 2.0]))
    seen: Counter[int] = Counter()
    for sampler.epoch in range(500):
        seen.update(flat(indices(sampler)))
    assert [seen[i] / 500 for i in range(4)] == pytest.approx([0.8, 0.8, 0.8, 1.6], abs=0.06)


def test_equal_weights_show_every_image_once() -> None:
    for seed in range(30):
        sampler = EpochBatches(range(37), 37, 300, seed=seed, weights=torch.full((37,), 1.7))
        assert sorted(flat(indices(sampler))) == list(range(37))


def test_weighted_processes_share_out_the_batches_of_one() -> None:
    weights = torch.linspace(1, 4, 30)
    ranks = [
        EpochBatches(range(30), 10, 300, seed=3, rank=r, world_size=2, weights=weights) for r in range(2)
    ]
    alone = EpochBatches(range(30), 10, 300, seed=3, weights=weights)
    together = [sorted(a + b) for a, b in zip(*ranks, strict=True)]
    assert together == [sorted(batch) for batch in alone]


def test_repeat_factors_follow_the_rarest_class_of_an_image() -> None:
    """Of 16 images 16 hold class 1, four class 2, one class 3; t = 1/2."""
    labels = [[1], [1, 2, 2], [2, 1, 3], [1, 2], [1, 2], *[[1]] * 11]
    factors = repeat_factors([torch.tensor(image) for image in labels], 0.5)
    assert factors.tolist() == pytest.approx([1, 2**0.5, 8**0.5, 2**0.5, 2**0.5, *[1] * 11])
    empty = torch.zeros(0, dtype=torch.int64)
    assert repeat_factors([empty, torch.tensor([1]), empty, empty], 0.25).tolist() == [1, 1, 1, 1]


CAT, DOG, DIFFICULT = Flagged(), Flagged(2), Flagged(difficult=True)


def test_images_without_an_object_to_learn_from_are_left_out(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    """By one process and by two; without the switch, all are shown."""
    file = write_flagged(
        tmp_path / "x.safetensors", [[CAT], [], [DIFFICULT], [DOG, DIFFICULT], [CAT], [], [DOG]]
    )
    params = make_params(**{"train.batch_size": 4, "train.skip_empty": True}).train
    alone = training_batches(file, params, 64, 0, 1)
    assert sorted(flat(indices(alone))) == [0, 3, 4, 6]
    assert alone.num_images == alone.num_used == 4
    shares = [indices(training_batches(file, params, 64, rank, 2)) for rank in range(2)]
    assert sorted(flat(shares[0]) + flat(shares[1])) == [0, 3, 4, 6]
    every = training_batches(file, params.model_copy(update={"skip_empty": False}), 64, 0, 1)
    assert sorted(flat(indices(every))) == list(range(7))


def test_repeat_factors_are_those_of_the_images_that_are_left(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    """A dog in one of four images, t = 1: factors 1, 1, 1, 2, whatever empty images there are besides."""
    file = write_flagged(tmp_path / "x.safetensors", [[CAT], [], [CAT], [], [], [CAT], [], [CAT, DOG]])
    changes = {"train.batch_size": 4, "train.skip_empty": True, "train.repeat_threshold": 1.0}
    sampler = training_batches(file, make_params(**changes).train, 64, 0, 1)
    seen: Counter[int] = Counter()
    for sampler.epoch in range(300):
        seen.update(flat(indices(sampler)))
    assert {i: count / 300 for i, count in seen.items()} == pytest.approx(
        {0: 0.8, 2: 0.8, 5: 0.8, 7: 1.6}, abs=0.08
    )


def test_a_file_of_which_nothing_is_left_is_an_error(
    make_params: Callable[..., Params], tmp_path: Path
) -> None:
    file = write_flagged(tmp_path / "x.safetensors", [[DIFFICULT], [], [DIFFICULT]])
    params = make_params(**{"train.batch_size": 4, "train.skip_empty": True}).train
    message = r"0 image.s. to train on of 3: train.skip_empty leaves out .*; at least 2 are needed"
    with pytest.raises(UserError, match=message):
        training_batches(file, params, 64, 0, 1)
