"""The check that training keeps as many models as are fused in the end."""

from ssd.params import EvaluateParams, TrainParams
from ssd.preflight.finding import Finding

KEY = "evaluate.ensemble"


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
