"""A part of stage 4: several models, fused: what that gains over the first, and what it costs.

They are the best ones of the run (`evaluate.ensemble`) and further ones (`evaluate.models`), as those of the
folds of a cross-validation.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd.ensemble.fusion import fuse_splits
from ssd.ensemble.gain import measure_gain
from ssd.errors import UserError
from ssd.evaluation import SplitResult
from ssd.files import sha256
from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import load_loss_settings, load_model
from ssd.params import EvaluateParams, Params
from ssd.preflight.ensemble import check_further_models
from stages.command import MODEL, resolve_model, stop_if_fatal, workspace
from stages.detect import detect

OTHERS = Path("models/best")
VAL = Path("data/tensors/val")
FURTHER = "evaluate.models"


@dataclass(frozen=True)
class Fused:
    """gain: for metrics.json; report: for ensemble.json, where the gain is with what was fused, the figures
    of each model alone, and seconds per image of the first model alone, of all models, and of the fusion
    itself, on this machine."""

    gain: dict[str, Any]
    report: dict[str, Any]


def best_models(num_models: int) -> dict[str, Path]:
    """The files of the next best models of the run, by name, for an ensemble of `num_models` with the first.

    Raises:
        UserError: training kept fewer.
    """
    paths = [OTHERS / f"{rank}.pt" for rank in range(2, num_models + 1)]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        kept = 1 + sum(path.is_file() for path in paths)
        raise UserError(
            f"found {num_models}, but training kept {kept} ({missing} is missing); set train.keep_best to as "
            "many, and train.epochs or train.val_every so that there are as many validations; if val has no "
            "objects, only the last weights are kept: raise preprocess.val_fraction",
            key="evaluate.ensemble",
        )
    return {path.as_posix(): path for path in paths}


def further_models(params: Params, others: Mapping[str, Path], test: TensorFile) -> dict[str, Path]:
    """The files of `evaluate.models`, by their names there.

    Args:
        others: the models of the run, by name; test: the split on which all are measured.

    Raises:
        UserError: one is missing, damaged, of other classes, of the run, or the same as another; or models of
            folds would have seen the split: there are folds, or it is the val split, which folds divide.
    """
    names = params.evaluate.models
    stop_if_fatal(check_further_models(params.data, params.evaluate, workspace()))
    if names and TensorFile(VAL).image_ids == test.image_ids:
        raise UserError(
            f"found {len(names)}, but the test split is the val split, on which models of folds were "
            "trained; set preprocess.test_fraction above 0 and train them again",
            key=FURTHER,
        )
    digests = {sha256(path): name for name, path in others.items()}
    found = {}
    for name in names:
        path = resolve_model(name, params.tracking, workspace())
        _, class_names = load_model(path)
        if class_names != test.class_names:
            raise UserError(
                f"{name}: its classes are {', '.join(class_names)}; those of the test split are "
                f"{', '.join(test.class_names)}; name models of these alone, or set data.classes",
                key=FURTHER,
            )
        digest = sha256(path)
        if digest in digests:
            raise UserError(f"{name}: the same model as {digests[digest]}; name each one once", key=FURTHER)
        digests[digest] = name
        found[name] = path
    return found


def fuse_models(
    first: SplitResult, others: Mapping[str, Path], file: TensorFile, params: EvaluateParams, f1_score: float
) -> Fused:
    """Run the other models over the split, and fuse their detections with those of the first.

    f1_score: `train.f1_score`.
    """
    splits, seconds = [first.detections], [first.seconds]
    for path in others.values():
        model, _ = load_model(path)
        found = detect(model, load_loss_settings(path), file, params)
        splits.append(found.detections)
        seconds.append(found.seconds)
    began = time.perf_counter()
    fused = fuse_splits(splits, max_detections=params.max_detections)
    fusion = time.perf_counter() - began
    objects = [file.objects(index) for index in range(len(file))]
    gain = measure_gain(splits, fused, objects, file.class_names, max(params.resamples, 1), f1_score)
    costs = {"first": seconds[0], "all": sum(seconds) + fusion, "fusion": fusion}
    report = {
        "fused": what_is_fused(params),
        **gain.as_json(),
        "models": [
            {"model": name, **single._asdict()}
            for name, single in zip([MODEL, *others], gain.singles, strict=True)
        ],
        "seconds_per_image": {name: value / len(file) for name, value in costs.items()},
    }
    return Fused(gain.as_json(), report)


def what_is_fused(params: EvaluateParams) -> str:
    """As in "the 3 best checkpoints of the run and 2 further models (evaluate.models)"."""
    own = MODEL if params.ensemble == 1 else f"the {params.ensemble} best checkpoints of the run"
    number = len(params.models)
    further = f"{number} further model{'s' if number > 1 else ''} ({FURTHER})"
    return f"{own} and {further}" if number else own
