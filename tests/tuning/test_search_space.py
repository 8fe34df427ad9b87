"""The search space: what it may be, in one line each; numbers stay whole, or are short and within it."""

from collections.abc import Callable

import pytest
from default_params import default_params
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ssd.errors import UserError
from ssd.params import Params
from ssd.params_space import as_content, read_space
from ssd.tuning.space import check_space, distributions, named, rounded, start_values, within

LR = {"low": 0.0005, "high": 0.008}


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        (5, "tune.space.train.lr: found 5; allowed: a list of values, or {low: , high: }"),
        ({"low": 1}, "tune.space.train.lr: found {'low': 1}; allowed: a list of values, or"),
        (LR | {"steps": 3}, "tune.space.train.lr.steps: found 3; allowed: low, high, log and step"),
        ({"low": "a", "high": 1}, "tune.space.train.lr.low: found 'a'; allowed: a number"),
        ({"low": 0.1, "high": 0.1}, "tune.space.train.lr.high: found 0.1; allowed: above low (0.1)"),
        ({"low": 0, "high": 1, "log": True}, "tune.space.train.lr.low: found 0; allowed: above 0 where log"),
        (LR | {"log": 1}, "tune.space.train.lr.log: found 1; allowed: true or false"),
        (LR | {"step": 1}, "tune.space.train.lr.step: found 1; allowed: a divisor of high - low"),
        ({"low": 0.0, "high": 1.0, "step": 0.3}, "tune.space.train.lr.step: found 0.3; allowed: a divisor"),
        ([0.1], "tune.space.train.lr: found [0.1]; allowed: at least two choices, each once"),
        ([0.1, 0.1], "tune.space.train.lr: found [0.1, 0.1]; allowed: at least two choices"),
        ([[0.1], [0.2]], "tune.space.train.lr: found [0.1]; allowed: choices that are numbers, texts"),
    ],
)
def test_a_mistake_in_an_axis_is_one_line_of_params_yaml(
    make_params: Callable[..., Params], axis: object, message: str
) -> None:
    with pytest.raises(UserError) as error:
        make_params(**{"tune.space": {"train.lr": axis}})
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"params.yaml: {message}")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "tune.space: found no key"),
        ({"train.rate": LR}, "tune.space.train.rate: no such key in preprocess, model, augment, train"),
        ({"lr": LR}, "tune.space.lr: no such key"),
        ({"evaluate.nms_iou": {"low": 0.3, "high": 0.6}}, "tune.space.evaluate.nms_iou: no such key"),
        ({"train.seed": [1, 2]}, "tune.space.train.seed: changes no model, or how models are judged"),
        ({"train.select_by": ["map", "f1"]}, "tune.space.train.select_by: changes no model"),
        (
            {"train.f1_score": {"low": 0.1, "high": 0.9}},
            "tune.space.train.f1_score: changes nothing of tune.objective: map50",
        ),
        ({"preprocess.split_seed": [1, 2]}, "tune.space.preprocess.split_seed: changes no model"),
        (
            {"train.momentum": {"low": 0.5, "high": 1.5}},
            "tune.space: train.momentum: found 1.5; allowed: less",
        ),
        ({"train.lr": {"low": 0, "high": 1}}, "tune.space: train.lr: found 0; allowed: greater than 0"),
        ({"train.epochs": {"low": 1.5, "high": 3}}, "tune.space: train.epochs: found 1.5; allowed: integer"),
        (
            {"train.epochs": {"low": 1, "high": 9, "step": 0.5}},
            "tune.space.train.epochs.step: found 0.5; allowed: a whole number, as train.epochs is",
        ),
        ({"augment.policy": ["ssd", "strong"]}, "tune.space: augment.policy: found 'strong'; allowed: "),
        ({"model.scale_first": {"low": 0.1, "high": 0.9}}, "tune.space: model.scale_second: found 0.9, "),
    ],
)
def test_a_key_or_value_that_no_trial_could_have_is_one_line(space: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_space(default_params(**{"tune.space": space}))
    (line,) = str(error.value).splitlines()
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.keep_best": 1}, "train.keep_best: found 1; tune.objective: fused_map50_f1 fuses 2 to 20"),
        ({"evaluate.models": ["a.pt"]}, "evaluate.models: found 1; allowed: [], as tune.objective"),
        ({"train.keep_best": 21, "train.epochs": 40}, "train.keep_best: found 21; tune.objective"),
        ({"train.val_every": 4}, "train.keep_best: found 3, but a trial may have only 2 models to fuse"),
        ({"train.early_stop": 1}, "train.keep_best: found 3, but a trial may have only 2 models"),
        ({"tune.space": {"train.epochs": [2, 9]}}, "train.keep_best: found 3, but a trial may have only 2"),
    ],
)
def test_an_objective_of_fused_models_needs_as_many_in_every_trial(
    changes: dict[str, object], message: str
) -> None:
    usual = {"tune.objective": "fused_map50_f1", "train.keep_best": 3, "train.epochs": 5}
    check_space(default_params(**usual))
    check_space(default_params(**usual, **{"train.val_every": 2}))
    with pytest.raises(UserError) as error:
        check_space(default_params(**(usual | changes)))
    (line,) = str(error.value).splitlines()
    assert line.startswith(message)


THRESHOLDS = {"low": 0.1, "high": 0.9}


@pytest.mark.parametrize(
    ("start", "axis", "message"),
    [
        (0.5, THRESHOLDS, ""),
        (0.0, THRESHOLDS, "train.f1_score: found 0, the best threshold of each class, which no single one"),
        (
            0.5,
            {"low": 0, "high": 0.9},
            "tune.space.train.f1_score: found 0, the best threshold of each class",
        ),
        (0.5, [0.0, 0.3], "tune.space.train.f1_score: found 0, the best threshold of each class"),
    ],
)
def test_one_score_threshold_is_searched_by_f1_and_compared_with_no_best_of_each_class(
    start: float, axis: object, message: str
) -> None:
    params = default_params(
        **{"tune.objective": "map50_f1", "train.f1_score": start, "tune.space": {"train.f1_score": axis}}
    )
    if not message:
        check_space(params)
        return
    with pytest.raises(UserError) as error:
        check_space(params)
    (line,) = str(error.value).splitlines()
    assert line.startswith(message)


def test_the_space_of_the_repository_can_be_searched_from_its_start() -> None:
    params = default_params()
    check_space(params)
    assert within(start_values(params), distributions(params)) == start_values(params)


def test_what_is_read_is_what_is_dumped() -> None:
    content = {
        "train.lr": LR | {"log": True},
        "train.epochs": {"low": 0, "high": 4, "step": 2},
        "a": [1, "x"],
    }
    assert as_content(read_space(content)) == content
    params = default_params(**{"tune.space": content})
    assert params.model_dump()["tune"]["space"] == content


def test_a_range_is_whole_numbers_where_the_param_is_one() -> None:
    space = {
        "train.epochs": {"low": 2, "high": 8, "step": 2},
        "train.negatives": {"low": 1, "high": 5},
        "train.lr": LR | {"log": True},
        "train.freeze_bn": [True, False],
    }
    assert distributions(default_params(**{"tune.space": space})) == {
        "train.epochs": IntDistribution(2, 8, step=2),
        "train.negatives": FloatDistribution(1, 5),
        "train.lr": FloatDistribution(0.0005, 0.008, log=True),
        "train.freeze_bn": CategoricalDistribution([True, False]),
    }


def test_numbers_are_drawn_with_four_digits_within_the_range() -> None:
    space = {"a": FloatDistribution(0.123456, 1.0), "b": FloatDistribution(0, 1, step=0.1)}
    assert rounded({"a": 0.56789123, "b": 0.30000000000000004}, space) == {"a": 0.5679, "b": 0.3}
    assert rounded({"a": 0.123456001, "b": 0.0}, space)["a"] == 0.1235
    assert rounded({"a": 0.1234}, space) == {"a": 0.123456}


def test_only_what_lies_in_the_space_is_learned_from() -> None:
    space = {"lr": FloatDistribution(0, 1, step=0.25), "n": IntDistribution(1, 5, step=2)}
    assert within({"lr": 0.75, "n": 3}, space) == {"lr": 0.75, "n": 3}
    assert within({"lr": 0.7, "n": 4}, space) == {}
    assert within({"lr": 1.25, "n": 7}, space) == {}
    assert within({"c": "z"}, {"c": CategoricalDistribution(["x", "y"])}) == {}


def test_values_are_named_without_their_section_where_that_is_clear() -> None:
    assert named({"train.lr": 0.1, "model.width": 64}) == "lr=0.1 width=64"
    assert named({"train.workers": 1, "preprocess.workers": 2}) == "train.workers=1 preprocess.workers=2"
