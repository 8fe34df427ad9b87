"""The training loop: epochs of steps, validation, checkpoints and resuming from them."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssd.errors import UserError
from ssd.evaluation import SplitResult, run_split
from ssd.hardware import Hardware
from ssd.interrupt import StopSignal
from ssd.loading.batches import EpochBatches, training_batches
from ssd.loading.cache import DecodedCache
from ssd.loading.dataset import Batch, DetectionDataset
from ssd.loading.loader import make_loader
from ssd.loading.tensor_file import TensorFile
from ssd.models.family import Model
from ssd.params import AugmentParams, TrainParams
from ssd.postprocess import PostProcessSettings
from ssd.processes.world import World
from ssd.training.checkpoints import CheckpointFolder
from ssd.training.history import Epoch
from ssd.training.progress import Progress, Reporter, StepLog, random_state, set_random_state
from ssd.training.schedule import learning_rate, side_of_batch, sizes_vary
from ssd.training.selection import Scores, measured, score, validation_scores
from ssd.training.step import TrainStep
from ssd.watchdog import Watchdog

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """The weights of the best epoch by `select_by` (of the last where nothing was measured), on the CPU.

    others: the next best, `keep_best` with the first; best_score: as measured, so a loss is positive; None
    where nothing was.
    """

    weights: dict[str, Tensor]
    others: list[dict[str, Tensor]]
    best_epoch: int
    best_score: float | None
    history: list[Epoch]


class Trainer:
    """Trains `model` on `train_file`, validating on `val_file` (which may be empty).

    Args:
        model: a network with its initial weights; trained in place.
        train_file, val_file: the splits.
        params: the `train` section.
        augment: the `augment` section.
        hardware: device and precision.
        world: the processes that share the work; each creates a Trainer.

    Raises:
        UserError: there are too few images to train on, or the cache does not fit into memory.
    """

    def __init__(
        self,
        model: Model,
        train_file: TensorFile,
        val_file: TensorFile,
        params: TrainParams,
        augment: AugmentParams,
        hardware: Hardware,
        world: World | None = None,
    ) -> None:
        self.params, self.hardware, self.world = params, hardware, world or World()
        self.train_file, self.val_file = train_file, val_file
        self.input_size = model.config.input_size
        self.step = TrainStep(model, params, augment, hardware, self.world)
        # The paper's settings, not those of `evaluate`, which must not affect training.
        self.postprocessor = self.step.model.postprocessor(PostProcessSettings())
        cache = DecodedCache(train_file, self.world.size) if params.cache == "ram" else None
        dataset = DetectionDataset(train_file, self.input_size, augment, params.seed, cache)
        world_size, rank = self.world.size, self.world.rank
        self.sampler = training_batches(train_file, params, self.input_size, rank, world_size)
        if sizes_vary(params):
            self.sampler.side_of = partial(side_of_batch, params, self.input_size)
        pin_memory = hardware.device.type == "cuda"
        self.loader = make_loader(dataset, self.sampler, params.workers, pin_memory=pin_memory)
        val_data = DetectionDataset(val_file, self.input_size)
        val_sampler = EpochBatches(
            range(len(val_file)),
            params.val_batch_size or 2 * params.batch_size,
            self.input_size,
            seed=None,
            rank=rank,
            world_size=world_size,
        )
        self.val_loader = make_loader(val_data, val_sampler, params.workers, pin_memory=pin_memory)
        # Without an object in it, a validation has losses, but no score that could rise.
        self.can_score = params.select_by == "val_loss" or bool(val_file.images_with_objects())
        self.progress = Progress()
        self.watchdog = Watchdog()
        self.folder: CheckpointFolder | None = None
        self.reporter = Reporter()
        self.stop = StopSignal()
        self.saved_at = time.monotonic()

    def run(
        self,
        folder: CheckpointFolder | None,
        reporter: Reporter | None = None,
        stop: StopSignal | None = None,
    ) -> TrainResult | None:
        """Train to the end, resuming from the last checkpoint of `folder` if it has one.

        Args:
            folder: in the main process; None in the others.
            reporter: gets the events of the training, in the main process.
            stop: checked after each step.

        Returns:
            The result, in the main process; None in the others.

        Raises:
            KeyboardInterrupt: `stop` received a signal; a checkpoint has been saved.
            UserError: too many losses or gradients are not finite, the GPU has too little memory, or a
                checkpoint cannot be written.
            LostProcessError: another process has ended or does not answer.
        """
        self.folder, self.stop = folder, stop or StopSignal()
        if reporter and self.world.is_main:
            self.reporter = reporter
        self.saved_at = time.monotonic()
        if self._resume():
            self.reporter.resumed(self.progress.history)
        with self.watchdog, self.world.exchanging(lambda: self.watchdog.where):
            self._remaining_epochs()
        if folder is None:
            return None
        (best, *others), history = folder.best, self.progress.history
        best_score = measured(history[best.epoch - 1], self.params.select_by)
        weights, *more = (folder.read_weights(item) for item in (best, *others))
        return TrainResult(weights, more, best.epoch, best_score, history)

    def _remaining_epochs(self) -> None:
        try:
            while not self.progress.finished:
                self._epoch()
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"out of GPU memory ({str(error).splitlines()[0]}); raise train.accumulate, or lower "
                f"train.batch_size ({self.params.batch_size}), train.val_batch_size or model.input_size"
            ) from None

    def _epoch(self) -> None:
        with self.stop.held():
            self._train_epoch()
        trained = time.perf_counter()
        self.step.broadcast_batch_norm_stats()
        try:
            result = self._validate() if self._validates() else None
        except KeyboardInterrupt:
            self._save()
            raise
        with self.stop.held():
            self._end_epoch(result, time.perf_counter() - trained)
            self._save()

    def _train_epoch(self) -> None:
        """Run the remaining steps of this epoch."""
        progress = self.progress
        steps = StepLog(progress, self.hardware.device)
        for batch in self._batches():
            lr = self._lr(progress.batch)
            losses = self.step(batch, progress.epoch, progress.batch, lr)
            steps.add(losses, batch.indices)
            progress.batch += 1
            was_read = self._read_losses(steps, lr)
            self._save_if_due(steps, was_read)

    def _batches(self) -> Iterator[Batch]:
        """The remaining batches of this epoch; measures the time of steps, and of waiting for their data."""
        progress, num_batches = self.progress, len(self.sampler)
        self.sampler.epoch, self.sampler.start = progress.epoch, progress.batch
        self.reporter.epoch_begins(progress.epoch + 1, progress.batch, num_batches)
        batches: Iterator[Any] = iter(self.loader if progress.batch < num_batches else [])
        for index in range(progress.batch, num_batches):
            started = time.perf_counter()
            self.watchdog.beat(f"epoch {progress.epoch + 1}, step {index + 1}, waiting for data")
            batch: Batch = next(batches)
            progress.waited_seconds += time.perf_counter() - started
            self.watchdog.beat(f"epoch {progress.epoch + 1}, step {index + 1}, computing")
            yield batch
            progress.trained_seconds += time.perf_counter() - started
            self.reporter.step_taken()

    def _lr(self, batch: int) -> float:
        """The learning rate at a batch, from 0, of this epoch."""
        num_batches = len(self.sampler)
        step, num_steps = self.progress.epoch * num_batches + batch, self.params.epochs * num_batches
        return learning_rate(step, num_steps, self.params) * self.progress.plateau.factor

    def _read_losses(self, steps: StepLog, lr: float) -> bool:
        """Every few steps, read, check and report the losses (a host-device sync); returns whether it did.

        Raises:
            UserError: more steps were skipped than `max_skipped`.
        """
        progress = self.progress
        if not (steps.is_full or progress.batch == len(self.sampler)):
            return False
        taken = []
        for total, skipped, indices in steps.read():
            if skipped:
                self._note_skipped(total, indices)
            else:
                taken.append(total)
        self.step.check_scale()
        if taken:
            num_steps = progress.epoch * len(self.sampler) + progress.batch
            self.reporter.losses_read(num_steps, sum(taken) / len(taken), lr)
        return True

    def _note_skipped(self, loss: float, indices: list[int]) -> None:
        """Log the images of a skipped step; raise UserError if there were too many."""
        self.progress.skipped += 1
        names = ", ".join(self.train_file.image_ids[i] for part in self.world.gather(indices) for i in part)
        what = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        skipped, allowed = self.progress.skipped, self.params.max_skipped
        if skipped > allowed:
            raise UserError(
                f"training stopped: {what} on images {names}, and {allowed} such steps are "
                "allowed (train.max_skipped); check these images, or lower train.lr, or set "
                "train.clip_norm or train.precision: fp32"
            )
        if self.world.is_main:
            log.warning("step skipped (%d of %d): %s on images %s", skipped, allowed, what, names)

    def _save_if_due(self, steps: StepLog, losses_were_read: bool) -> None:
        """Save a checkpoint within an epoch, at intervals and before the training is stopped.

        Raises:
            KeyboardInterrupt: a process received a signal.
        """
        stops = self._agrees_to_stop(losses_were_read)
        is_last = self.progress.batch == len(self.sampler)
        is_due = time.monotonic() - self.saved_at > 60 * self.params.checkpoint_minutes
        if stops or is_last or is_due:
            steps.sum_up()
        if stops or (is_due and not is_last):
            self._save()
        if stops:
            raise KeyboardInterrupt

    def _agrees_to_stop(self, losses_were_read: bool) -> bool:
        """Whether a process received a signal. On a GPU, checked only where the loop synchronises anyway."""
        if self.world.size == 1:
            return self.stop.received
        if self.hardware.device.type == "cuda" and not losses_were_read:
            return False
        return bool(self.world.sum_(torch.tensor(int(self.stop.received))))

    def _validates(self) -> bool:
        epoch = self.progress.epoch + 1
        due = epoch == self.params.epochs or epoch % self.params.val_every == 0
        return due and len(self.val_file) > 0

    def _validate(self) -> SplitResult:
        return self.validate(self.watchdog, f"epoch {self.progress.epoch + 1}, validating")

    def validate(self, watchdog: Watchdog, where: str) -> SplitResult:
        """Run `step.best_model()` over the val split, shared by all processes.

        Args:
            watchdog: told at every batch; where: what it then says.
        """
        watchdog.beat(where)
        return run_split(
            self.step.best_model(),
            self.step.criterion_at(self.input_size),
            self.postprocessor,
            self.val_loader,
            self.hardware,
            world=self.world,
            on_batch=lambda: watchdog.beat(where),
        )

    def _end_epoch(self, result: SplitResult | None, validation_seconds: float) -> None:
        """Score the epoch, keep its weights if they are among the best, and move on."""
        progress, params = self.progress, self.params
        self.watchdog.beat(f"epoch {progress.epoch + 1}, scoring and saving")
        scores = self._scores(result) if result and self.world.is_main else Scores()
        lr, losses = self._lr(max(progress.batch - 1, 0)), result.losses if result else None
        row = progress.row(len(self.sampler), self.sampler.num_used, lr, losses, scores, validation_seconds)
        row = self.world.broadcast(row)
        progress.history.append(row)
        selected = score(row, params.select_by)
        if params.select_by == "train_loss" or (result is not None and self.can_score):
            self._observe(-math.inf if selected is None else selected)
        if self.folder:
            self.folder.save_weights(self.step.best_model().state_dict(), row.epoch, selected)
        early = progress.patience.exceeded(params.early_stop)
        progress.start_epoch()
        progress.finished = early or progress.epoch == params.epochs
        if self.world.is_main and early and progress.epoch < params.epochs:
            unit = "epochs" if params.select_by == "train_loss" else "validations"
            log.info("stopped early: no better %s in %d %s", params.select_by, progress.patience.waited, unit)
        self.reporter.epoch_ended(progress.history)

    def _observe(self, selected: float) -> None:
        """Count a score, -inf where there is none, towards a lower learning rate and an early end."""
        progress, params = self.progress, self.params
        progress.patience.observe(selected)
        if params.schedule == "plateau":
            progress.plateau.observe(selected, params.patience, params.gamma, params.plateau_threshold)

    def _scores(self, result: SplitResult) -> Scores:
        objects = [self.val_file.objects(index) for index in range(len(self.val_file))]
        names, f1_score = self.val_file.class_names, self.params.f1_score
        return validation_scores(result.detections, objects, names, f1_score)

    def _resume(self) -> bool:
        """Load the last valid checkpoint, the main process's in all of them; returns whether there is one."""
        state = self.world.broadcast(self.folder.load() if self.folder else None)
        if state is None:
            return False
        self.progress = Progress.from_state(state["progress"])
        if not self.progress.finished:
            self.step.load_state(state["step"])
            set_random_state(state["random"])
        return True

    def _save(self) -> None:
        """Write a checkpoint, in the main process. Of a finished training only the best weights are kept."""
        if self.folder is None:
            return
        progress = self.progress
        state: dict[str, object] = {"progress": progress.state()}
        if not progress.finished:
            state |= {"step": self.step.state(), "random": random_state()}
        num_steps = progress.epoch * len(self.sampler) + progress.batch
        self.folder.save(state, num_steps, final=progress.finished)
        self.saved_at = time.monotonic()
