"""A part of stage 3: the best models of a training, fused, on the val split.

`tune.objective: fused_map50_f1` is read from what this writes; `evaluate.ensemble` measures the same on the
test split.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from ssd.ensemble.fusion import fuse_splits
from ssd.files import write_json
from ssd.training.loop import Trainer
from ssd.training.selection import Scores, validation_scores
from ssd.watchdog import Watchdog

FUSED = Path("reports/train/ensemble.json")


def report_fused(trainer: Trainer, weights: Sequence[dict[str, Tensor]] = ()) -> Scores | None:
    """Write and return the scores of the fused models; None, and no file, where `train.keep_best` is 1.

    Every process calls it, for all share the work as in a validation: alone, the main one could take longer
    than the others wait. It alone has the weights, writes, and returns scores.

    Args:
        trainer: its training has ended.
        weights: of the best epochs.
    """
    is_main = trainer.world.is_main
    if is_main:
        FUSED.unlink(missing_ok=True)
    if trainer.params.keep_best == 1:
        return None
    scores = fused_scores(trainer, weights) if trainer.val_file.images_with_objects() else Scores()
    if not is_main:
        return None
    write_json(FUSED, {"num_models": len(weights), **asdict(scores)})
    return scores


def fused_scores(trainer: Trainer, weights: Sequence[dict[str, Tensor]] = ()) -> Scores:
    """Detect by each of the models as a validation of the training does, fuse, and score.

    The network of `trainer` is loaded with the weights, one after the other. Processes beside the main one
    get no scores.
    """
    file, world, splits = trainer.val_file, trainer.world, []
    with Watchdog() as watchdog, world.exchanging(lambda: watchdog.where):
        watchdog.beat("waiting for the best models, to fuse them")
        num_models = world.broadcast(len(weights))
        for number in range(num_models):
            where = f"validating model {number + 1} of the best {num_models}, to fuse them"
            watchdog.beat(where)
            own = world.broadcast(weights[number] if weights else {})
            trainer.step.best_model().load_state_dict(own)
            splits.append(trainer.validate(watchdog, where).detections)
    if not world.is_main:
        return Scores()
    objects = [file.objects(index) for index in range(len(file))]
    return validation_scores(fuse_splits(splits), objects, file.class_names, trainer.params.f1_score)
