"""A part of stage 4: the best models of a run, fused: what that gains over the first, and what it costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd.ensemble.fusion import fuse_splits
from ssd.ensemble.gain import measure_gain
from ssd.errors import UserError
from ssd.evaluation import SplitResult
from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import load_loss_settings, load_model
from ssd.params import EvaluateParams
from stages.detect import detect

OTHERS = Path("models/best")


@dataclass(frozen=True)
class Fused:
    """gain: for metrics.json; seconds_per_image: of the first model alone, of all models, and of the fusion
    itself, on this machine."""

    gain: dict[str, Any]
    seconds_per_image: dict[str, float]


def other_models(num_models: int) -> list[Path]:
    """The files of the next best models, for an ensemble of `num_models` with the first.

    Raises:
        UserError: training kept fewer.
    """
    paths = [OTHERS / f"{rank}.pt" for rank in range(2, num_models + 1)]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        kept = 1 + sum(path.is_file() for path in paths)
        raise UserError(
            f"found {num_models}, but training kept {kept} ({missing} is missing); set train.keep_best to as "
            "many, and train.epochs or train.val_every so that there are as many validations",
            key="evaluate.ensemble",
        )
    return paths


def fuse_models(
    first: SplitResult, others: Sequence[Path], file: TensorFile, params: EvaluateParams, f1_score: float
) -> Fused:
    """Run the other models over the split, and fuse their detections with those of the first.

    f1_score: `train.f1_score`.
    """
    splits, seconds = [first.detections], [first.seconds]
    for path in others:
        model, _ = load_model(path)
        found = detect(model, load_loss_settings(path), file, params)
        splits.append(found.detections)
        seconds.append(found.seconds)
    began = time.perf_counter()
    fused = fuse_splits(splits, max_detections=params.max_detections)
    fusion = time.perf_counter() - began
    objects = [file.objects(index) for index in range(len(file))]
    gain = measure_gain(
        first.detections, fused, objects, file.class_names, len(splits), max(params.resamples, 1), f1_score
    )
    costs = {"first": seconds[0], "all": sum(seconds) + fusion, "fusion": fusion}
    return Fused(gain.as_json(), {name: value / len(file) for name, value in costs.items()})
