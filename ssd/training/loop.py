"""The training loop: epochs of steps, validation, checkpoints; it goes on where another process stopped."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ssd.errors import UserError
from ssd.evaluation import SplitResult, run_split
from ssd.hardware import Hardware
from ssd.interrupt import StopSignal
from ssd.loading.batches import EpochBatches, make_loader, repeat_factors
from ssd.loading.cache import DecodedCache
from ssd.loading.dataset import Batch, DetectionDataset
from ssd.loading.tensor_file import TensorFile
from ssd.models.ssd import SSD
from ssd.params import AugmentParams, TrainParams
from ssd.postprocess import PostProcessor, PostProcessSettings
from ssd.processes.world import World
from ssd.training.checkpoints import CheckpointFolder
from ssd.training.progress import (
    Epoch,
    Progress,
    Scores,
    random_state,
    score,
    set_random_state,
    validation_scores,
)
from ssd.training.schedule import lr_factor, side_of_batch, sizes_vary
from ssd.training.step import TrainStep
from ssd.unused_params import warn_of_unused_training
from ssd.watchdog import Watchdog

log = logging.getLogger(__name__)

# Reading a loss from a GPU waits for it; once in so many steps costs nothing.
STEPS_BETWEEN_READS = 20


@dataclass(frozen=True)
class TrainResult:
    """The weights of the best epoch by `select_by` (of the last without validation), on the CPU."""

    weights: dict[str, Tensor]
    best_epoch: int
    best_score: float | None
    history: list[Epoch]


class Trainer:
    """Trains `model` on `train_file`, validating on `val_file` (which may be empty).

    Args:
        model: a network with its starting weights; trained in place.
        train_file, val_file: the splits.
        params: the `train` section.
        augment: the `augment` section.
        hardware: where, and in which precision.
        world: the processes that share the work; each makes a Trainer.
    """

    def __init__(
        self,
        model: SSD,
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
        # The paper's settings, whatever `evaluate` says: they must not decide what is trained.
        self.postprocessor = PostProcessor(self.step.model.priors, PostProcessSettings())
        cache = DecodedCache(train_file, self.world.size) if params.cache == "ram" else None
        dataset = DetectionDataset(train_file, self.input_size, augment, params.seed, cache)
        self.sampler = self._sampler()
        pin_memory = hardware.device.type == "cuda"
        self.loader = make_loader(dataset, self.sampler, params.workers, pin_memory=pin_memory)
        self.progress = Progress()
        if self.world.is_main:
            warn_of_unused_training(params, len(self.sampler), len(val_file), hardware, self.world.size)

    def _sampler(self) -> EpochBatches:
        params, file = self.params, self.train_file
        weights: Tensor | None = None
        if params.repeat_threshold > 0:
            labels = [file.objects(index).labels for index in range(len(file))]
            weights = repeat_factors(labels, params.repeat_threshold)
        sampler = EpochBatches(
            len(file), params.batch_size, self.input_size, seed=params.seed,
            rank=self.world.rank, world_size=self.world.size, weights=weights,
        )  # fmt: skip
        if len(sampler) == 0:
            needed = 2 * self.world.size
            raise UserError(f"{file.path}: {len(file)} image(s) to train on; at least {needed} are needed")
        if sizes_vary(params):
            sampler.side_of = lambda epoch, batch: side_of_batch(params, self.input_size, epoch, batch)
        return sampler

    def run(
        self,
        folder: CheckpointFolder | None,
        on_resume: Callable[[list[Epoch]], None] = lambda history: None,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
        on_step: Callable[[int, float, float], None] = lambda step, loss, lr: None,
        stop: StopSignal | None = None,
    ) -> TrainResult | None:
        """Train, from the last checkpoint of `folder` if it has one, to the end.

        Args:
            folder: of the main process; None in the others.
            on_resume: called with the history where there is a checkpoint, in the main process.
            on_epoch: called after each epoch, in the main process.
            on_step: called once in STEPS_BETWEEN_READS steps with the number of steps taken, their mean
                total loss and the learning rate, in the main process.
            stop: looked at after each step.

        Returns:
            The result, in the main process; None in the others.

        Raises:
            KeyboardInterrupt: `stop` received a signal; a checkpoint has been saved.
            UserError: too many losses or gradients are not finite, the GPU has too little memory, or a
                checkpoint cannot be written.
        """
        self._folder, self._stop = folder, stop or StopSignal()
        self._on_epoch, self._on_step = on_epoch, on_step
        self._saved_at = time.monotonic()
        if self._resume() and self.world.is_main:
            on_resume(self.progress.history)
        with Watchdog() as self._watchdog:
            while not self.progress.finished:
                try:
                    self._epoch()
                except torch.OutOfMemoryError as error:
                    raise UserError(
                        f"out of GPU memory ({str(error).splitlines()[0]}); raise train.accumulate, or lower "
                        f"train.batch_size ({self.params.batch_size}) or model.input_size in params.yaml"
                    ) from None
        if folder is None:
            return None
        best = folder.best[0]
        return TrainResult(folder.read_weights(best), best.epoch, best.score, self.progress.history)

    def _resume(self) -> bool:
        """Take up the last good checkpoint, the main process's in all of them; whether there is one."""
        state = self.world.broadcast(self._folder.load() if self._folder else None)
        if state is None:
            return False
        self.progress = Progress.from_state(state["progress"])
        if not self.progress.finished:
            self.step.load_state(state["step"])
            set_random_state(state["random"])
        return True

    def _save(self) -> None:
        """Write a checkpoint, in the main process. A finished training needs no weights but the best."""
        if self._folder is None:
            return
        progress = self.progress
        state: dict[str, object] = {"progress": progress.state()}
        if not progress.finished:
            state |= {"step": self.step.state(), "random": random_state()}
        num_steps = progress.epoch * len(self.sampler) + progress.batch
        self._folder.save(state, num_steps, final=progress.finished)
        self._saved_at = time.monotonic()

    def _epoch(self) -> None:
        with self._stop.held():
            lr = self._train_epoch()
        trained = time.perf_counter()
        self.step.share_statistics()
        try:
            result = self._validate() if self._validates() else None
        except KeyboardInterrupt:
            self._save()
            raise
        with self._stop.held():
            self._end_epoch(lr, result, time.perf_counter() - trained)
            self._save()

    def _validates(self) -> bool:
        epoch = self.progress.epoch + 1
        due = epoch == self.params.epochs or epoch % self.params.val_every == 0
        return due and len(self.val_file) > 0

    def _train_epoch(self) -> float:
        """Take the rest of this epoch's steps; the last learning rate."""
        progress, num_batches = self.progress, len(self.sampler)
        self.sampler.epoch, self.sampler.start = progress.epoch, progress.batch
        sums = torch.tensor([*progress.losses, progress.left_out], device=self.hardware.device)
        bar = tqdm(
            desc=f"epoch {progress.epoch + 1}/{self.params.epochs}", initial=progress.batch,
            total=num_batches, leave=False, disable=None if self.world.is_main else True,
        )  # fmt: skip
        unread: list[tuple[Tensor, list[int]]] = []
        lr = self._lr(max(progress.batch - 1, 0))
        batches: Iterator[Any] = iter(self.loader if progress.batch < num_batches else [])
        with bar:
            for index in range(progress.batch, num_batches):
                started = time.perf_counter()
                self._beat(index, "waiting for data")
                batch: Batch = next(batches)
                progress.waited_seconds += time.perf_counter() - started
                self._beat(index, "computing")
                lr = self._lr(index)
                losses = self.step(batch, progress.epoch, index, lr)
                # A loss that is not finite must not spoil the sum.
                sums += torch.where(losses[3] > 0, losses.new_tensor([0.0, 0.0, 0.0, 1.0]), losses)
                unread.append((losses, batch.indices))
                bar.update()
                progress.batch = index + 1
                reads = len(unread) == STEPS_BETWEEN_READS or progress.batch == num_batches
                if reads:
                    bar.set_postfix(loss=f"{self._read(unread, lr):.3f}", refresh=False)
                    unread.clear()
                progress.trained_seconds += time.perf_counter() - started
                stops = self._agrees_to_stop(reads)
                if stops or progress.batch == num_batches or self._checkpoint_is_due():
                    *progress.losses, left_out = sums.tolist()
                    progress.left_out = round(left_out)
                    if stops or progress.batch < num_batches:
                        self._save()
                if stops:
                    raise KeyboardInterrupt
        return lr

    def _beat(self, index: int, doing: str) -> None:
        self._watchdog.beat(f"epoch {self.progress.epoch + 1}, step {index + 1}, {doing}")

    def _lr(self, index: int) -> float:
        step, num_steps = (
            self.progress.epoch * len(self.sampler) + index,
            self.params.epochs * len(self.sampler),
        )
        return self.params.lr * lr_factor(step, num_steps, self.params) * self.progress.plateau.factor

    def _checkpoint_is_due(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self.params.checkpoint_minutes

    def _agrees_to_stop(self, reads: bool) -> bool:
        """Whether a process received a signal. A GPU is asked only where the loop waits for it anyway."""
        if self.world.size == 1:
            return self._stop.received
        if self.hardware.device.type == "cuda" and not reads:
            return False
        return bool(self.world.sum_(torch.tensor(int(self._stop.received))))

    def _read(self, unread: list[tuple[Tensor, list[int]]], lr: float) -> float:
        """Mean total loss of the steps that were taken; names the images of those that were left out."""
        values = torch.stack([losses for losses, _ in unread]).tolist()
        self.step.check_scale()
        for value, (_, indices) in zip(values, unread, strict=True):
            if value[3]:
                self._note_left_out(value[0], indices)
        taken = [value[0] for value in values if not value[3]]
        mean = sum(taken) / len(taken) if taken else float("nan")
        if self.world.is_main and taken:
            progress = self.progress
            self._on_step(progress.epoch * len(self.sampler) + progress.batch, mean, lr)
        return mean

    def _note_left_out(self, loss: float, indices: list[int]) -> None:
        self.progress.skipped += 1
        names = ", ".join(self.train_file.image_ids[i] for part in self.world.gather(indices) for i in part)
        what = "a gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        skipped, allowed = self.progress.skipped, self.params.max_skipped
        if skipped > allowed:
            raise UserError(
                f"training stopped: {what} on the batch of images {names}, and {allowed} such steps are "
                "allowed (train.max_skipped); look at these images, or lower params.yaml: train.lr, or set "
                "train.clip_norm or train.precision: fp32"
            )
        if self.world.is_main:
            log.warning(
                "step left out (%d of %d): %s on the batch of images %s", skipped, allowed, what, names
            )

    def _validate(self) -> SplitResult:
        where = f"epoch {self.progress.epoch + 1}, validating"
        self._watchdog.beat(where)
        return run_split(
            self.step.best_model(),
            self.step.criterion_at(self.input_size),
            self.postprocessor,
            self.val_file,
            self.hardware,
            batch_size=self.params.batch_size * 2,
            workers=self.params.workers,
            label="validation",
            world=self.world,
            on_batch=lambda: self._watchdog.beat(where),
        )

    def _end_epoch(self, lr: float, result: SplitResult | None, validation_seconds: float) -> None:
        """Score the epoch, keep its weights if they are among the best, and move on."""
        progress, params = self.progress, self.params
        scores = self.world.broadcast(self._scores(result) if result and self.world.is_main else Scores())
        selected = score(scores, params.select_by)
        if result is not None:
            progress.plateau.observe(selected or 0.0, params.patience, params.gamma)
            progress.patience.observe(selected or 0.0)
        num_taken = max(len(self.sampler) - progress.left_out, 1)
        train_loss, train_loc, train_conf = (total / num_taken for total in progress.losses)
        row = Epoch(
            epoch=progress.epoch + 1,
            lr=lr,
            train_loss=train_loss,
            train_loc=train_loc,
            train_conf=train_conf,
            val_loss=result.loss if result else None,
            val_loc=result.loc_loss if result else None,
            val_conf=result.conf_loss if result else None,
            val_map50=scores.map50,
            val_map=scores.map,
            val_f1=scores.f1,
            skipped=progress.left_out,
            images_per_s=self.sampler.num_used / max(progress.trained_seconds, 1e-9),
            data_wait=progress.waited_seconds / max(progress.trained_seconds, 1e-9),
            seconds=progress.trained_seconds + validation_seconds,
        )
        progress.history.append(row)
        if self._folder:
            self._folder.save_weights(self.step.best_model().state_dict(), row.epoch, selected)
        early = progress.patience.exceeded(params.early_stop)
        progress.start_epoch()
        progress.finished = early or progress.epoch == params.epochs
        if self.world.is_main:
            if early and progress.epoch < params.epochs:
                log.info("stopped early: no gain in %d validations", progress.patience.waited)
            self._on_epoch(row)

    def _scores(self, result: SplitResult) -> Scores:
        objects = [self.val_file.objects(index) for index in range(len(self.val_file))]
        return validation_scores(result.detections, objects, self.val_file.class_names)
