"""A part of stage 3: the best models of a training, fused, on the val split.

`tune.objective: fused_map50_f1` is read from what this writes; `evaluate.ensemble` measures the same on the
test split.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from ssd.ensemble.fusion import fuse_splits
from ssd.evaluation import run_split
from ssd.files import write_json
from ssd.loading.batches import EpochBatches
from ssd.loading.dataset import DetectionDataset
from ssd.loading.loader import make_loader
from ssd.training.loop import Trainer
from ssd.training.selection import Scores, validation_scores

FUSED = Path("reports/train/ensemble.json")


def report_fused(trainer: Trainer, weights: Sequence[dict[str, Tensor]]) -> Scores | None:
    """Write and return the scores of the fused models; None, and no file, where `train.keep_best` is 1.

    Args:
        trainer: its training has ended.
        weights: of the best epochs.
    """
    FUSED.unlink(missing_ok=True)
    if trainer.params.keep_best == 1:
        return None
    scores = fused_scores(trainer, weights) if trainer.val_file.images_with_objects() else Scores()
    write_json(FUSED, {"num_models": len(weights), **asdict(scores)})
    return scores


def fused_scores(trainer: Trainer, weights: Sequence[dict[str, Tensor]]) -> Scores:
    """Detect by each of the models as a validation of the training does, fuse, and score; in one process.

    The network of `trainer` is loaded with the weights, one after the other.
    """
    file, params, side = trainer.val_file, trainer.params, trainer.input_size
    loader = make_loader(
        DetectionDataset(file, side),
        EpochBatches(range(len(file)), params.val_batch_size or 2 * params.batch_size, side, seed=None),
        params.workers,
        pin_memory=trainer.hardware.device.type == "cuda",
    )
    model, criterion = trainer.step.best_model(), trainer.step.criterion_at(side)
    splits = []
    for item in weights:
        model.load_state_dict(item)
        result = run_split(model, criterion, trainer.postprocessor, loader, trainer.hardware)
        splits.append(result.detections)
    objects = [file.objects(index) for index in range(len(file))]
    return validation_scores(fuse_splits(splits), objects, file.class_names, params.f1_score)
