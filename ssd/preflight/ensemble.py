"""The checks that the models which are fused in the end will be there, and may be measured together."""

import os
from collections import Counter
from pathlib import Path

from ssd.params import DataParams, EvaluateParams, TrainParams
from ssd.preflight.finding import Finding
from ssd.tracking.model_files import is_mlflow_uri

KEY = "evaluate.ensemble"
MODELS_KEY = "evaluate.models"
OWN = ("models/model.pt", "models/best")
"""What training writes: DVC removes it before, and `evaluate.ensemble` fuses it."""


def check_ensemble(train: TrainParams, evaluate: EvaluateParams) -> list[Finding]:
    """What would stop stage evaluate after a whole training, which says the same of what it finds then."""
    wanted = evaluate.ensemble
    if wanted > train.keep_best:
        text = f"found {wanted}, but train.keep_best keeps {train.keep_best}; set it to {wanted}"
        return [Finding(KEY, text)]
    num_validations = -(-train.epochs // train.val_every)
    if wanted > num_validations and train.select_by != "train_loss":
        text = (
            f"found {wanted}, but train.epochs and train.val_every give {num_validations} validations; "
            f"change them so that there are {wanted}"
        )
        return [Finding(KEY, text)]
    return []


def check_further_models(data: DataParams, evaluate: EvaluateParams, root: Path) -> list[Finding]:
    """What forbids to fuse `evaluate.models`: folds, a name that is there twice, files that are missing or
    those of the run itself. MLflow is not asked.

    Args:
        data, evaluate: sections of params.yaml.
        root: the main workspace, from which relative paths count.
    """
    if evaluate.models and data.folds:
        text = (
            f"found {len(evaluate.models)} with data.folds {data.folds}: models of other folds were trained "
            "on this fold's test images; set it to [], or data.folds to 0"
        )
        return [Finding(MODELS_KEY, text)]
    twice = [name for name, number in Counter(evaluate.models).items() if number > 1]
    findings = [Finding(MODELS_KEY, f"{name}: is there twice; name each one once") for name in twice]
    files = [name for name in dict.fromkeys(evaluate.models) if not is_mlflow_uri(name)]
    findings += [Finding(MODELS_KEY, text) for name in files if (text := _obstacle(name, root))]
    return findings


def _obstacle(name: str, root: Path) -> str:
    """Why a file cannot be a further model; "" if it can."""
    # As it is written: DVC may have made links to its cache of them.
    path = Path(os.path.normpath(root / Path(name).expanduser()))
    if any(path.is_relative_to(os.path.normpath(root / own)) for own in OWN):
        return (
            f"{name}: is a model of the run itself, which DVC removes before training; evaluate.ensemble "
            "fuses these; copy one of another training to another place"
        )
    hint = "`python -m stages.folds` fetches the models of a cross-validation to models/folds"
    return "" if path.is_file() else f"{name}: no such file; {hint}"
