"""The training loop: epochs of steps, validation by mAP@0.5, the best weights."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from ssd.data.augment import Geometry, Photometry, distort
from ssd.data.dataset import Batch, DetectionDataset, make_loader, normalise
from ssd.data.seeding import seeded
from ssd.data.tensors import TensorFile
from ssd.errors import UserError
from ssd.hardware import Hardware
from ssd.inference import SplitResult, run_split
from ssd.loss import MultiBoxLoss
from ssd.metrics.voc import mean_ap
from ssd.models.ssd import SSD
from ssd.params import TrainParams
from ssd.postprocess import PostProcess, PostProcessor
from ssd.training.optimizer import build_optimizer
from ssd.training.schedule import Plateau, lr_factor

log = logging.getLogger(__name__)

# Reading a loss from a GPU waits for it; once in so many steps costs nothing.
STEPS_BETWEEN_READS = 20


@dataclass(frozen=True)
class Epoch:
    """A row of the history; epochs count from 1.

    Losses are means over steps; val_* are None where there was no validation.

    lr: at the last step; images_per_s: of training alone; data_wait: share of the time in which the
    loop waited for the loader; seconds: of the whole epoch.
    """

    epoch: int
    lr: float
    train_loss: float
    train_loc: float
    train_conf: float
    val_loss: float | None
    val_loc: float | None
    val_conf: float | None
    val_map50: float | None
    images_per_s: float
    data_wait: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """The weights of the best epoch by validation mAP@0.5 (of the last without validation), on the CPU."""

    weights: dict[str, Tensor]
    best_epoch: int
    best_map50: float | None
    history: list[Epoch]


class Trainer:
    """Trains `model` on `train_file`, validating on `val_file` (which may be empty).

    Args:
        model: a network with its starting weights; trained in place.
        train_file, val_file: the splits.
        params: the `train` section.
        geometry, photometry: augmentation.
        hardware: where, and in which precision.
    """

    def __init__(
        self,
        model: SSD,
        train_file: TensorFile,
        val_file: TensorFile,
        params: TrainParams,
        geometry: Geometry,
        photometry: Photometry,
        hardware: Hardware,
    ) -> None:
        self.params, self.photometry, self.hardware = params, photometry, hardware
        self.train_file, self.val_file = train_file, val_file
        device = hardware.device
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.criterion = MultiBoxLoss(model.priors, params.match_iou, params.negatives, params.min_negatives)
        # The paper's settings, whatever `evaluate` says: they must not decide what is trained.
        self.postprocessor = PostProcessor(model.priors, PostProcess())
        self.optimizer: Optimizer = build_optimizer(self.model, params)
        dataset = DetectionDataset(train_file, model.config.input_size, geometry, params.seed)
        self.loader, self.sampler = make_loader(
            dataset, params.batch_size, params.workers, shuffle=True, pin_memory=device.type == "cuda"
        )
        if len(self.loader) == 0:
            raise UserError(f"{train_file.path}: {len(train_file)} image to train on; at least 2 are needed")
        self._warn_of_unused()
        self.plateau = Plateau()
        self.history: list[Epoch] = []
        self._on_step: Callable[[int, float, float], None] | None = None

    def run(
        self, on_epoch: Callable[[Epoch], None], on_step: Callable[[int, float, float], None] | None = None
    ) -> TrainResult:
        """Train all epochs.

        Args:
            on_epoch: called after each epoch.
            on_step: called once in STEPS_BETWEEN_READS steps with the number of steps taken, their mean
                total loss and the learning rate.

        Raises:
            UserError: a loss is not finite, or the GPU has too little memory.
        """
        self._on_step = on_step
        best_map50: float | None = None
        best_epoch = 0
        weights: dict[str, Tensor] = {}
        for epoch in range(self.params.epochs):
            try:
                row = self._epoch(epoch)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"out of GPU memory ({str(error).splitlines()[0]}); lower train.batch_size "
                    f"({self.params.batch_size}) or model.input_size in params.yaml"
                ) from None
            self.history.append(row)
            on_epoch(row)
            score = row.val_map50
            # Until there is a score, the latest weights are the best known.
            if best_map50 is None or (score is not None and score > best_map50):
                best_epoch, best_map50 = row.epoch, score
                weights = {
                    name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()
                }
        return TrainResult(weights, best_epoch, best_map50, self.history)

    def _warn_of_unused(self) -> None:
        params, num_steps = self.params, self.params.epochs * len(self.loader)
        if params.schedule == "plateau" and len(self.val_file) == 0:
            log.warning("train.schedule: plateau never lowers the learning rate: there is no val split")
        if params.warmup_steps >= num_steps:
            log.warning(
                "train.warmup_steps: %d steps of warm-up, but training has %d: train.lr is never reached",
                params.warmup_steps,
                num_steps,
            )

    def _epoch(self, epoch: int) -> Epoch:
        started = time.perf_counter()
        losses, lr, waited = self._train_epoch(epoch)
        trained = time.perf_counter() - started
        last = epoch == self.params.epochs - 1
        result: SplitResult | None = None
        map50: float | None = None
        if len(self.val_file) > 0 and (last or (epoch + 1) % self.params.val_every == 0):
            result = self._validate()
            objects = [self.val_file.objects(index) for index in range(len(self.val_file))]
            map50 = mean_ap(result.detections, objects, self.model.num_classes - 1)
            self.plateau.observe(map50 or 0.0, self.params.patience, self.params.gamma)
        num_images = min(len(self.loader) * self.params.batch_size, len(self.train_file))
        return Epoch(
            epoch=epoch + 1,
            lr=lr,
            train_loss=losses[0],
            train_loc=losses[1],
            train_conf=losses[2],
            val_loss=result.loss if result else None,
            val_loc=result.loc_loss if result else None,
            val_conf=result.conf_loss if result else None,
            val_map50=map50,
            images_per_s=num_images / trained,
            data_wait=waited / trained,
            seconds=time.perf_counter() - started,
        )

    def _train_epoch(self, epoch: int) -> tuple[list[float], float, float]:
        """Mean losses (total, loc, conf), the last learning rate, and seconds spent waiting for data."""
        self.model.train()
        self.sampler.epoch = epoch
        sums = torch.zeros(3, device=self.hardware.device)
        stopwatch = _Stopwatch()
        batches = tqdm(self.loader, desc=f"epoch {epoch + 1}/{self.params.epochs}", leave=False, disable=None)
        unread: list[tuple[Tensor, list[int]]] = []
        lr = 0.0
        for index, batch in enumerate(stopwatch.waiting_for(batches)):
            lr = self._set_lr(epoch * len(self.loader) + index)
            losses = self._step(batch, epoch, index)
            sums += losses
            unread.append((losses, batch.indices))
            if len(unread) == STEPS_BETWEEN_READS or index == len(self.loader) - 1:
                loss = self._read(unread)
                unread.clear()
                batches.set_postfix(loss=f"{loss:.3f}", refresh=False)
                if self._on_step:
                    self._on_step(epoch * len(self.loader) + index + 1, loss, lr)
        return (sums / len(self.loader)).tolist(), lr, stopwatch.seconds

    def _step(self, batch: Batch, epoch: int, index: int) -> Tensor:
        """One update; returns the losses (total, loc, conf), float32 [3], without waiting for them."""
        device = self.hardware.device
        images = batch.images.to(device, non_blocking=True).float()
        generator = seeded("colour", self.params.seed, epoch, index)
        images = normalise(distort(images, self.photometry, generator))
        with self.hardware.autocast():
            loc, logits = self.model(images)
        losses = self.criterion(loc, logits, batch.targets.to(device))
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        if self.params.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.params.clip_norm)
        self.optimizer.step()
        return torch.stack([losses.total, losses.loc, losses.conf]).detach()

    def _set_lr(self, step: int) -> float:
        num_steps = self.params.epochs * len(self.loader)
        lr = self.params.lr * lr_factor(step, num_steps, self.params) * self.plateau.factor
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def _read(self, unread: list[tuple[Tensor, list[int]]]) -> float:
        """Their mean loss; raises when one is not finite, naming the images of its batch."""
        values = torch.stack([losses[0] for losses, _ in unread]).tolist()
        for value, (_, indices) in zip(values, unread, strict=True):
            if not torch.isfinite(torch.tensor(value)):
                names = ", ".join(self.train_file.image_ids[i] for i in indices)
                raise UserError(
                    f"training stopped: the loss is {value} on the batch of images {names}; look at these "
                    "images, or lower params.yaml: train.lr, or set train.clip_norm or train.precision: fp32"
                )
        return float(sum(values) / len(values))

    def _validate(self) -> SplitResult:
        return run_split(
            self.model,
            self.criterion,
            self.postprocessor,
            self.val_file,
            self.hardware,
            batch_size=self.params.batch_size * 2,
            workers=self.params.workers,
            label="validation",
        )


class _Stopwatch:
    """Seconds spent in `next()` of an iterable: what the loop waits for its data."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def waiting_for(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch
