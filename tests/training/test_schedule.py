"""The learning rate, step by step."""

from collections.abc import Callable

import pytest

from ssd.params import Params
from ssd.training.schedule import learning_rate

MakeParams = Callable[..., Params]


def factors(params: Params, num_steps: int) -> list[float]:
    return [learning_rate(step, num_steps, params.train) / params.train.lr for step in range(num_steps)]


def test_warm_up_is_linear_and_then_the_peak(make_params: MakeParams) -> None:
    values = factors(make_params(**{"train.warmup_steps": 9}), 100)
    assert values[:9] == pytest.approx([0.1 * step for step in range(1, 10)])
    assert values[9] == pytest.approx(1)


def test_cosine_falls_from_one_to_zero(make_params: MakeParams) -> None:
    values = factors(make_params(**{"train.warmup_steps": 0, "train.schedule": "cosine"}), 101)
    assert values[0] == pytest.approx(1)
    assert values[50] == pytest.approx(0.5, abs=0.01)
    assert values[-1] == pytest.approx(0, abs=0.001)
    assert values == sorted(values, reverse=True)


def test_step_multiplies_by_gamma_at_each_milestone(make_params: MakeParams) -> None:
    params = make_params(
        **{
            "train.warmup_steps": 0,
            "train.schedule": "step",
            "train.milestones": [0.5, 0.8],
            "train.gamma": 0.1,
        }
    )
    values = factors(params, 100)
    assert values == pytest.approx([1.0] * 50 + [0.1] * 30 + [0.01] * 20)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_after_the_warm_up_if_any_they_stay_at_the_peak(schedule: str, make_params: MakeParams) -> None:
    changes = {"train.schedule": schedule, "train.milestones": [0.5]}
    assert factors(make_params(**changes, **{"train.warmup_steps": 0}), 50) == [1.0] * 50
    warmed = factors(make_params(**changes, **{"train.warmup_steps": 3}), 50)
    assert warmed[:3] == pytest.approx([0.25, 0.5, 0.75])
    assert warmed[3:] == [1.0] * 47


def test_milestones_are_fractions_of_all_steps_not_of_whole_epochs(make_params: MakeParams) -> None:
    changes = {"train.schedule": "step", "train.milestones": [0.335], "train.warmup_steps": 0}
    params = make_params(**changes)
    values = factors(params, 1000)
    assert values == pytest.approx([1.0] * 335 + [0.1] * 665)
