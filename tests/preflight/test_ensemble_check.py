"""The checks of the models that are fused in the end."""

from pathlib import Path

import pytest
from default_params import default_params

from ssd.preflight.ensemble import check_ensemble, check_further_models


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


@pytest.mark.parametrize(
    ("models", "folds", "found"),
    [
        ([], 5, []),
        (["there.pt", "runs:/0a", "models:/ssd@champion"], 0, []),
        (["gone.pt", "there.pt", "folds"], 0, ["gone.pt: no such file; `python -m", "folds: no such file"]),
        (["there.pt", "there.pt"], 0, ["there.pt: is there twice"]),
        (
            ["models/model.pt", "./models/best/../best/2.pt", "models/folds/0-1a.pt"],
            0,
            [
                "models/model.pt: is a model of the run itself",
                "./models/best/../best/2.pt: is a model of the",
            ],
        ),
        (["there.pt"], 5, ["found 1 with data.folds 5: models of other folds were trained on"]),
    ],
)
def test_further_models_have_to_be_there_and_not_to_have_seen_the_test_images(
    tmp_path: Path, models: list[str], folds: int, found: list[str]
) -> None:
    for name in ("there.pt", "models/model.pt", "models/best/2.pt", "models/folds/0-1a.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folds").mkdir()
    params = default_params(**{"evaluate.models": models, "data.folds": folds})
    findings = check_further_models(params.data, params.evaluate, tmp_path)
    assert all(finding.fatal and finding.key == "evaluate.models" for finding in findings)
    assert [finding.text[: len(start)] for finding, start in zip(findings, found, strict=True)] == found
