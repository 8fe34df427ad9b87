"""The check that training keeps as many models as are fused."""

import pytest
from default_params import default_params

from ssd.preflight.ensemble import check_ensemble


@pytest.mark.parametrize(
    ("ensemble", "keep_best", "val_every", "select_by", "found"),
    [
        (1, 1, 1, "map50", ""),
        (3, 3, 2, "map50", ""),
        (3, 3, 10, "train_loss", ""),
        (3, 1, 1, "map50", "found 3, but train.keep_best keeps 1; set it to 3"),
        (3, 3, 4, "map50", "give 2 validations"),
    ],
)
def test_too_few_models_are_found_before_the_training(
    ensemble: int, keep_best: int, val_every: int, select_by: str, found: str
) -> None:
    train = {"epochs": 5, "keep_best": keep_best, "val_every": val_every, "select_by": select_by}
    changes = {f"train.{key}": value for key, value in train.items()}
    params = default_params(**changes, **{"evaluate.ensemble": ensemble})
    findings = check_ensemble(params.train, params.evaluate)
    assert len(findings) == (found != "")
    for finding in findings:
        assert finding.fatal
        assert found in finding.text
