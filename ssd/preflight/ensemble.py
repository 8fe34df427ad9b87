"""The checks that the models which are fused in the end will be there, and may be measured together."""

from pathlib import Path

from ssd.params import DataParams, EvaluateParams, TrainParams
from ssd.preflight.finding import Finding
from ssd.tracking.model_files import is_mlflow_uri

KEY = "evaluate.ensemble"
MODELS_KEY = "evaluate.models"


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
    """What forbids to fuse `evaluate.models`: folds, and files that are missing. MLflow is not asked.

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
    files = [name for name in evaluate.models if not is_mlflow_uri(name)]
    missing = [name for name in files if not (root / Path(name).expanduser()).is_file()]
    hint = "`python -m stages.folds` fetches the models of a cross-validation to models/folds"
    return [Finding(MODELS_KEY, f"{name}: no such file; {hint}") for name in missing]
