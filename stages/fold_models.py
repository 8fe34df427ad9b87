"""A part of `python -m stages.folds`: the models of all folds, and how to measure them fused.

They may be measured together on what is the test split without folds: no fold has seen it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ssd.cross_validation import CrossValidation, Experiment
from ssd.errors import UserError
from ssd.files import sha256
from ssd.params import Params
from ssd.tracking.run_name import NOT_IN_NAME
from stages.command import MODEL
from stages.dvc_files import copy_output, read_output, recorded_digest

FOLDER = Path("models/folds")
RAW = "data/raw"
PROBLEMS = "reports/preprocess/problems.json"
DIGITS = 8
"""Of the SHA-256 in a file's name: another content has another name, which is all that DVC sees of it."""

FETCHED = re.compile(rf"\d+-[0-9a-f]{{{DIGITS}}}\.pt|\.\d+-[0-9a-f]{{{DIGITS}}}\.pt\.part")
"""Names that `fetch` gives, and those of copies that were left half written."""


def how_to_fuse(validation: CrossValidation, params: Params) -> str:
    """Fetch the models of a cross-validation that is complete to models/folds; the command that fuses them.

    Instead of it, why they cannot be measured together: the params make other splits now, the data has
    changed, or the folds left out no images.

    Raises:
        UserError: DVC has not kept a model, or not as it was measured.
    """
    differing = list(different_splits(validation.params, params))
    if differing:
        return (
            f"not fused: params.yaml differs from this cross-validation in {', '.join(differing)}, so folds "
            "may have seen its test split; set the same values and run this again"
        )
    experiments = validation.finished.values()
    if not have_same_data(experiments):
        return (
            f"not fused: {RAW} was not the same in all folds, or is another here now, so folds may have seen "
            "images of the test split; run the folds again"
        )
    num_images = num_left_out(next(iter(experiments)))
    if not num_images:
        return (
            "not fused: the folds left out no images to measure their models on together; set "
            "preprocess.test_fraction above 0 and run the folds again"
        )
    files = ", ".join(fetch(experiment).as_posix() for experiment in experiments)
    return (
        f"the models of the folds are in {FOLDER}; this fuses them with the model of params.yaml, which is "
        f"trained if DVC has none, and measures all on the {num_images} images that no fold has seen:\n"
        f"dvc exp run -S data.folds=0 -S data.fold=0 -S 'evaluate.models=[{files}]'"
    )


def different_splits(then: Mapping[str, Any], params: Params) -> Iterator[str]:
    """The keys by which the images of params.yaml may be split otherwise than those of the folds were."""
    for section in ("data", "preprocess"):
        before = then.get(section, {})
        for name, value in params.model_dump()[section].items():
            key = f"{section}.{name}"
            if name not in ("folds", "fold") and key not in NOT_IN_NAME and before.get(name, value) != value:
                yield key


def have_same_data(experiments: Iterable[Experiment]) -> bool:
    """Whether all were run on the same content of data/raw, and it is the one here, if there is one.

    No param tells: DVC watches the path of a user's folder, not the folder behind it.
    """
    digests = {recorded_digest(RAW, experiment.revision) for experiment in experiments}
    return len(digests | {recorded_digest(RAW)} - {""}) == 1


def num_left_out(experiment: Experiment) -> int:
    """How many images are in no fold because they are the test split without folds."""
    problems = json.loads(read_output(experiment.revision, PROBLEMS))["problems"]
    return sum(item["split"] == "test" and item["action"] == "unused" for item in problems)


def fetch(experiment: Experiment) -> Path:
    """The model of a fold in models/folds, copied from DVC's cache unless it is there.

    Raises:
        UserError: DVC has not kept it, or has another one than evaluate measured.
    """
    measured = experiment.metrics.get("sha256", [])
    digest = next((line.split()[0] for line in measured if line.endswith(f"  {MODEL}")), "")
    if not digest:
        raise UserError(f"{experiment.name}: its reports/metrics.json does not name the model; run it again")
    path = FOLDER / f"{experiment.fold}-{digest[:DIGITS]}.pt"
    if not path.is_file():
        copy_output(experiment.revision, MODEL, path)
    if sha256(path) != digest:
        raise UserError(
            f"{path}: not the model that {experiment.name} measured; delete it, and run this again"
        )
    return path
