"""Parts of a data set: exact sizes, and every class in each by its fraction."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.prepare.stratify import part_sizes, stratified_parts

FIVE = [0.2] * 5
SPLITS = [0.8, 0.15, 0.05]


def made_up(num_images: int, num_classes: int, seed: int = 0) -> list[list[str]]:
    """Images with several objects of classes that are very unequally common, some without objects."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, num_classes + 1) ** 1.2
    nums = rng.geometric(0.3, size=num_images) - 1
    return [[f"c{c}" for c in rng.choice(num_classes, size=num, p=weights / weights.sum())] for num in nums]


def errors(
    classes: Sequence[Sequence[str]], parts: Sequence[int], fractions: Sequence[float]
) -> dict[str, float]:
    """Of each class, by how many objects a part is off at most."""
    found = [Counter[str]() for _ in fractions]
    for names, part in zip(classes, parts, strict=True):
        found[part].update(names)
    totals = Counter(name for names in classes for name in names)
    return {
        name: max(abs(found[part][name] - fraction * total) for part, fraction in enumerate(fractions))
        for name, total in totals.items()
    }


@given(
    classes=st.lists(st.lists(st.sampled_from("abcde"), max_size=6), max_size=40),
    weights=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    seed=st.integers(0, 99),
)
def test_every_image_gets_a_part_and_the_sizes_are_exact(
    classes: list[list[str]], weights: list[int], seed: int
) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    parts = stratified_parts(classes, fractions, seed)
    assert len(parts) == len(classes)
    assert [parts.count(part) for part in range(len(fractions))] == part_sizes(len(classes), fractions)
    assert stratified_parts(classes, fractions, seed) == parts


@given(num=st.integers(0, 1000), weights=st.lists(st.integers(0, 99), min_size=1, max_size=30).filter(any))
def test_sizes_sum_up_and_are_less_than_one_off(num: int, weights: list[int]) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    sizes = part_sizes(num, fractions)
    assert sum(sizes) == num
    assert all(abs(size - num * fraction) < 1 for size, fraction in zip(sizes, fractions, strict=True))


def test_the_largest_remainders_are_rounded_up() -> None:
    assert part_sizes(10, [0.55, 0.28, 0.17]) == [5, 3, 2]
    assert part_sizes(7, FIVE) == [2, 2, 1, 1, 1]
    assert part_sizes(10, [0.7, 0.2, 0.1]) == [7, 2, 1]
    assert part_sizes(0, FIVE) == [0] * 5


@pytest.mark.parametrize("fractions", [FIVE, SPLITS, [0.5, 0.5]])
def test_images_of_one_class_each_are_spread_to_within_one_or_two(fractions: list[float]) -> None:
    classes = [["abcdefg"[min(number % 30, 6)]] for number in range(1000)]
    *rarer, commonest = sorted(errors(classes, stratified_parts(classes, fractions, 0), fractions).values())
    assert max(rarer) < 1
    assert commonest < 2, "the class that takes the places that are left"


@pytest.mark.parametrize("fractions", [FIVE, SPLITS])
def test_images_of_several_classes_are_spread_to_within_three_images(fractions: list[float]) -> None:
    rng = np.random.default_rng(1)
    classes = [[name for name in "abcdef" if rng.random() < 0.3] for _ in range(600)]
    off = errors(classes, stratified_parts(classes, fractions, 0), fractions)
    assert max(off.values()) < 3
    assert np.mean(list(off.values())) < 1


@pytest.mark.parametrize("fractions", [FIVE, SPLITS])
def test_classes_are_far_more_even_than_by_chance(fractions: list[float]) -> None:
    classes = made_up(4000, 20)
    parts = stratified_parts(classes, fractions, 0)
    by_chance = []
    for seed in range(5):
        shuffled = parts[:]
        random.Random(seed).shuffle(shuffled)
        by_chance.append(np.mean(list(errors(classes, shuffled, fractions).values())))
    assert np.mean(list(errors(classes, parts, fractions).values())) < min(by_chance) / 4


def test_repeated_names_are_several_objects() -> None:
    classes = [["crowd"] * 10] * 2 + [["crowd"]] * 20
    parts = stratified_parts(classes, [0.5, 0.5], 0)
    assert errors(classes, parts, [0.5, 0.5]) == {"crowd": 0}
    assert parts[0] != parts[1]


def test_a_class_with_fewer_images_than_parts_is_once_in_each_of_some() -> None:
    classes = [["rare", "common"]] * 3 + [["common"]] * 47
    parts = stratified_parts(classes, FIVE, 0)
    assert len(set(parts[:3])) == 3


def test_the_part_that_wants_a_lone_image_most_gets_it() -> None:
    classes = [["rare"]] + [["common"]] * 99
    assert {stratified_parts(classes, SPLITS, seed)[0] for seed in range(10)} == {0}


@pytest.mark.parametrize("fractions", [FIVE, SPLITS])
def test_images_without_objects_are_spread_as_well(fractions: list[float]) -> None:
    classes = made_up(1000, 20)
    parts = stratified_parts(classes, fractions, 0)
    empty = [part for names, part in zip(classes, parts, strict=True) if not names]
    assert [empty.count(part) for part in range(len(fractions))] == pytest.approx(
        [len(empty) * fraction for fraction in fractions], abs=1
    )


def test_without_any_object_the_cut_is_random_and_exact() -> None:
    parts = stratified_parts([[]] * 50, FIVE, 0)
    assert [parts.count(part) for part in range(5)] == [10] * 5
    assert any(left > right for left, right in pairwise(parts))


def test_another_seed_cuts_otherwise_and_as_evenly() -> None:
    classes = made_up(500, 10)
    cuts = [stratified_parts(classes, FIVE, seed) for seed in range(4)]
    for number, cut in enumerate(cuts):
        for other in cuts[:number]:
            assert sum(a != b for a, b in zip(cut, other, strict=True)) > 250
    means = [np.mean(list(errors(classes, cut, FIVE).values())) for cut in cuts]
    assert max(means) < 3


def test_the_cut_is_the_same_on_every_machine() -> None:
    assert stratified_parts(made_up_by_hand(), [0.6, 0.4], 3) == [1, 0, 1, 1, 0, 0, 0, 1, 0, 0]


def made_up_by_hand() -> list[tuple[str, ...]]:
    return [("a",), ("a", "b"), ("b",), (), ("c", "a"), ("c",), (), ("a",), ("c", "c"), ("b",)]


def test_one_part_holds_all() -> None:
    assert stratified_parts(made_up(20, 3), [1.0], 0) == [0] * 20
    assert stratified_parts([], FIVE, 0) == []


def test_no_process_that_cuts_waits_for_torch() -> None:
    code = "import sys, ssd.prepare.stratify; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
