"""Output of training: terminal, history table, MLflow. Nothing here changes the weights.

The environment variable SSD_HISTORY_COPY names a second file for the history, outside of the copy of an
experiment, which DVC deletes; `python -m stages.tune` reads there how far a trial is.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from ssd.files import sha256, write_bytes
from ssd.loading.tensor_file import TensorFile
from ssd.params import NOT_OF_A_RUN, Params
from ssd.tracking.opening import MODEL_TAG
from ssd.tracking.run import Run, flat_params
from ssd.training.history import Epoch, history_tsv
from ssd.training.loop import Trainer, TrainResult
from ssd.training.progress import Reporter
from ssd.training.selection import Scores
from ssd.unused_params import warn_of_unused_augmentation, warn_of_unused_by_family, warn_of_unused_training
from stages.run import log_splits, stage_run
from stages.run_name import name_of

HISTORY = Path("reports/train/history.tsv")
HISTORY_COPY = "SSD_HISTORY_COPY"
RUN_FILE = "mlflow_run"
"""In the folder of checkpoints: the id of the MLflow run, which a resumed training continues."""


class TrainLog(Reporter):
    """Receives the events of the training loop.

    Args:
        run: of MLflow.
        num_epochs: of the training.
        run_file: keeps the run's id for a training that resumes this one.
    """

    def __init__(self, run: Run, num_epochs: int, run_file: Path) -> None:
        self.run, self.num_epochs, self.run_file = run, num_epochs, run_file
        self.kept_id = ""
        self.bar: tqdm[NoReturn] = tqdm(disable=True)

    @staticmethod
    @contextmanager
    def opened(params: Params, trainer: Trainer, folder: Path) -> Iterator["TrainLog"]:
        """Print the start, and keep the MLflow run open for the block.

        Args:
            params: all of them.
            trainer: before it runs.
            folder: of the checkpoints.
        """
        run_file = folder / RUN_FILE
        resume = run_file.read_text() if run_file.is_file() else None
        sections = {"model", "augment", "train"}
        warn_of_unused_training(
            params.train,
            len(trainer.sampler),
            len(trainer.val_file.images_with_objects()),
            trainer.hardware,
            trainer.world.size,
        )
        warn_of_unused_by_family(params.model, params.train)
        warn_of_unused_augmentation(params.augment)
        with stage_run(params, "train", sections=sections, name=name_of(params), resume=resume) as run:
            log = TrainLog(run, params.train.epochs, run_file)
            log.keep_run_id()
            if not run.resumed:
                run.params(flat_params(params.model_dump(exclude=NOT_OF_A_RUN)))
            log_data(run, params, trainer.train_file, trainer.val_file)
            say_where(trainer, folder)
            try:
                yield log
            except KeyboardInterrupt:
                say_where_it_stopped(trainer)
                raise

    def resumed(self, history: list[Epoch]) -> None:
        """Write the history so far, to MLflow what it lacks: its server was down, or it is another run."""
        print(f"training resumes after epoch {len(history)}", flush=True)
        write_history(history)
        self.run.missing_metrics("lr", {epoch.epoch: metrics_of(epoch) for epoch in history})

    def epoch_begins(self, epoch: int, first: int, num_batches: int) -> None:
        """A bar on a terminal; nothing where stderr is a log."""
        title = f"epoch {epoch}/{self.num_epochs}"
        self.bar = tqdm(desc=title, initial=first, total=num_batches, leave=False, disable=None)

    def step_taken(self) -> None:
        """Move the bar."""
        self.bar.update()

    def losses_read(self, num_steps: int, loss: float, lr: float) -> None:
        """The loss beside the bar, and in MLflow."""
        self.bar.set_postfix({"loss": f"{loss:.3f}", **gpu_memory()}, refresh=False)
        self.run.metrics({"step/loss": loss, "step/lr": lr}, step=num_steps)

    def epoch_ended(self, history: list[Epoch]) -> None:
        """A line, the table, MLflow."""
        self.bar.close()
        print(line_of(history[-1]) + time_left(history, self.num_epochs), flush=True)
        write_history(history)
        self.run.metrics(metrics_of(history[-1]), step=history[-1].epoch)
        self.keep_run_id()

    def keep_run_id(self) -> None:
        """Write it to `run_file`, once MLflow has opened the run."""
        if self.run.id != self.kept_id:
            write_bytes(self.run_file, self.run.id.encode())
            self.kept_id = self.run.id

    def ended(self, result: TrainResult, model: Path, priors: Path, fused: Scores | None) -> None:
        """Log the files that training wrote; later stages find the run by the model's digest.

        fused: of the best models together, where several are kept.
        """
        self.run.tags({MODEL_TAG: sha256(model)})
        self.run.metrics({"best/epoch": result.best_epoch, "best/score": result.best_score})
        if fused is not None:
            self.run.metrics({f"fused/{name}": value for name, value in asdict(fused).items()})
            print(f"the best {1 + len(result.others)} fused:{line_of_scores(fused)}", flush=True)
        fit = json.loads(priors.read_text())["model"]
        self.run.metrics({f"priors/{key}": fit[key] for key in ("mean_best_iou", "recall50")})
        self.run.file(model, "model")
        self.run.file(HISTORY.parent, "train")


def write_history(history: Sequence[Epoch]) -> None:
    """The table so far, and its copy if one is wanted."""
    table = history_tsv(history).encode()
    write_bytes(HISTORY, table)
    if copy := os.environ.get(HISTORY_COPY):
        write_bytes(copy, table)


def metrics_of(epoch: Epoch) -> dict[str, float | None]:
    """An epoch's losses, scores and speed, as MLflow groups them."""
    values = {key.replace("_", "/", 1): value for key, value in asdict(epoch).items()}
    scalars = {key: value for key, value in values.items() if key.startswith(("train/", "val/"))}
    speeds = {"speed/images_per_s": epoch.images_per_s, "speed/data_wait": epoch.data_wait}
    return {**scalars, "lr": epoch.lr, **speeds}


def log_data(run: Run, params: Params, *files: TensorFile) -> None:
    """Log the splits, their sizes, and the classes."""
    log_splits(run, params, *files)
    run.tags({"classes": json.dumps(files[0].class_names)})
    run.metrics({f"data/{file.path.stem}_images": len(file) for file in files})


def say_where(trainer: Trainer, folder: Path) -> None:
    """Print the device, the number of images and the folder of checkpoints."""
    size, hardware = trainer.world.size, trainer.hardware
    where = f"{hardware.device}" if size == 1 else f"{size} processes, {hardware.device.type}"
    used, num_images = trainer.sampler.num_images, len(trainer.train_file)
    left_out = f" ({num_images - used} without an object are left out)" if used < num_images else ""
    print(f"training on {where}, {hardware.dtype}, {used} images{left_out}", flush=True)
    print(f"checkpoints in {folder}", flush=True)


def say_where_it_stopped(trainer: Trainer) -> None:
    """Print the epoch and step at which a training was stopped."""
    progress = trainer.progress
    if progress.finished:
        print("stopped after the last epoch; the next `dvc repro` goes on from there", file=sys.stderr)
    elif progress.epoch or progress.batch:
        where = f"epoch {progress.epoch + 1}, step {progress.batch}"
        print(f"stopped at {where}; the next `dvc repro` resumes from there", file=sys.stderr)


def line_of(epoch: Epoch) -> str:
    """An epoch for the terminal."""
    map50 = "" if epoch.val_map50 is None else f"  val mAP@0.5 {epoch.val_map50:.3f}"
    speed = f"{epoch.images_per_s:.0f} images/s, {epoch.data_wait:.0%} waiting for data"
    return f"epoch {epoch.epoch:3d}  loss {epoch.train_loss:.3f}{map50}  {speed}"


def line_of_scores(scores: Scores) -> str:
    """Those of a validation for the terminal."""
    found = {"mAP@0.5": scores.map50, "F1": scores.f1}
    return "".join(f"  val {name} {value:.3f}" for name, value in found.items() if value is not None)


def time_left(history: Sequence[Epoch], num_epochs: int) -> str:
    """For the end of an epoch's line: the mean time of the epochs so far, for those that are left."""
    left = (num_epochs - len(history)) * sum(epoch.seconds for epoch in history) / len(history)
    return f", about {format_interval(left)} left" if left else ""


def format_interval(seconds: float) -> str:
    """ "40 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def gpu_memory() -> dict[str, str]:
    """What torch has of the GPU's memory at most, for the bar; nothing on a CPU."""
    if not torch.cuda.is_available():
        return {}
    return {"GPU": f"{torch.cuda.max_memory_reserved() / 1e9:.1f} GB"}
