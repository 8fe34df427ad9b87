"""Better is what lies beyond the spread over seeds; and what was searched is compared on the test split."""

import pytest
from default_params import default_params
from scipy.stats import ttest_ind

from ssd.tuning.verdict import figure_on_test, verdict

START, HIGHER, NOISY = (0.50, 0.52, 0.51), (0.60, 0.61, 0.59), (0.40, 0.70, 0.60)


@pytest.mark.parametrize("best", [HIGHER, NOISY, (0.4, 0.41)])
def test_the_interval_is_that_of_welch_s_test(best: tuple[float, ...]) -> None:
    found = verdict(best, START)
    interval = ttest_ind(best, START, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.low < found.difference < found.high


def test_a_higher_mean_counts_only_beyond_the_spread() -> None:
    assert verdict(HIGHER, START).is_better
    assert verdict(NOISY, START).difference > 0
    assert not verdict(NOISY, START).is_better
    assert not verdict(START, HIGHER).is_better


def test_without_any_spread_the_difference_decides() -> None:
    assert verdict((0.5, 0.5), (0.4, 0.4)).is_better
    assert not verdict((0.5, 0.5), (0.5, 0.5)).is_better


def test_the_objective_on_test_is_read_where_evaluate_writes_it() -> None:
    fused = {"map50": 0.7, "f1": 0.9, "map": 0.2}
    metrics = {"coco": {"map50": 0.6, "map": 0.3}, "voc": {"f1": 0.9}, "ensemble": fused}
    wanted = {"map50": 0.6, "f1": 0.9, "mean": 0.6, "map50_f1": 0.75, "fused_map50_f1": 0.8}
    for objective, figure in wanted.items():
        tune = default_params(**{"tune.objective": objective}).tune
        assert figure_on_test(metrics, tune) == pytest.approx(figure)
