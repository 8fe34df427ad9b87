"""Damaged files of every kind are refused in one clear line, or read with nothing lost: 250 of them."""

import pytest

from tests.torture.inputs import NAMES, torture


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_with_nothing_lost() -> None:
    table, failures = torture(NAMES, num_each=21, seed=1)
    assert failures == []
    assert sum(table[name].total() for name in NAMES) >= 250
    assert sum(table[name]["refused"] for name in NAMES) >= 50, "the damage must be real"
