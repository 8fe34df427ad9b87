"""Progress of a training: counters between two steps, the history so far, and their reporting.

A checkpoint contains a `Progress`, the weights and the states of the random generators.
"""

import math
import random
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd.training.history import Epoch
from ssd.training.selection import Patience, Plateau, Scores


@dataclass
class Progress:
    """Counters, sums and scores of a training.

    epoch: number of finished epochs; batch: finished batches of the current one; losses: sums of (total, loc,
    conf) over its steps; epoch_skipped, skipped: skipped steps of this epoch, and of the whole training;
    trained_seconds, waited_seconds: time of the steps of this epoch, and of waiting for their data.
    """

    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    epoch_skipped: int = 0
    skipped: int = 0
    trained_seconds: float = 0.0
    waited_seconds: float = 0.0
    finished: bool = False
    history: list[Epoch] = field(default_factory=list)
    plateau: Plateau = field(default_factory=Plateau)
    patience: Patience = field(default_factory=Patience)

    def row(
        self,
        num_batches: int,
        num_images: int,
        lr: float,
        val_losses: tuple[float, float, float] | None,
        scores: Scores,
        validation_seconds: float,
    ) -> Epoch:
        """The current epoch, whose batches are all finished, as a row of the history.

        Args:
            num_batches, num_images: of the epoch, over all processes; lr: at its last step.
            val_losses: total, loc and conf; None without validation.
            scores, validation_seconds: of the validation, and its duration.
        """
        num_taken = num_batches - self.epoch_skipped or math.nan
        train_loss, train_loc, train_conf = (total / num_taken for total in self.losses)
        val_loss, val_loc, val_conf = val_losses or (None, None, None)
        return Epoch(
            epoch=self.epoch + 1,
            lr=lr,
            train_loss=train_loss,
            train_loc=train_loc,
            train_conf=train_conf,
            val_loss=val_loss,
            val_loc=val_loc,
            val_conf=val_conf,
            val_map50=scores.map50,
            val_map75=scores.map75,
            val_map=scores.map,
            val_f1=scores.f1,
            skipped=self.epoch_skipped,
            images_per_s=num_images / max(self.trained_seconds, 1e-9),
            data_wait=self.waited_seconds / max(self.trained_seconds, 1e-9),
            seconds=self.trained_seconds + validation_seconds,
        )

    def start_epoch(self) -> None:
        """Count an epoch as ended and begin the next."""
        self.epoch += 1
        self.batch = self.epoch_skipped = 0
        self.losses = [0.0, 0.0, 0.0]
        self.trained_seconds = self.waited_seconds = 0.0

    def state(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Progress":
        """The inverse of `state`."""
        return cls(
            **{
                **state,
                "history": [Epoch(**row) for row in state["history"]],
                "plateau": Plateau(**state["plateau"]),
                "patience": Patience(**state["patience"]),
            }
        )


class StepLog:
    """The losses of an epoch's steps, which stay on the device until they are read.

    Args:
        progress: has the sums of the epoch so far; `sum_up` updates them.
        device: of the losses.
    """

    STEPS_BETWEEN_READS = 20
    """Reading a loss from a GPU is a host-device sync; once in so many steps its cost is negligible."""

    def __init__(self, progress: Progress, device: torch.device) -> None:
        self._progress = progress
        self._sums = torch.tensor([*progress.losses, progress.epoch_skipped], device=device)
        self._unread: list[tuple[Tensor, list[int]]] = []

    def add(self, losses: Tensor, indices: list[int]) -> None:
        """Record a step: total, loc, conf and 1 if skipped, float32 [4]; and the rows of its images."""
        # A non-finite loss must not enter the sum.
        self._sums += torch.where(losses[3] > 0, losses.new_tensor([0.0, 0.0, 0.0, 1.0]), losses)
        self._unread.append((losses, indices))

    @property
    def is_full(self) -> bool:
        """Whether it is time to read."""
        return len(self._unread) == self.STEPS_BETWEEN_READS

    def read(self) -> list[tuple[float, bool, list[int]]]:
        """Total loss, whether it was skipped, and images of each step since the last read; a sync."""
        values = torch.stack([losses for losses, _ in self._unread]).tolist()
        steps = [(v[0], bool(v[3]), indices) for v, (_, indices) in zip(values, self._unread, strict=True)]
        self._unread.clear()
        return steps

    def sum_up(self) -> None:
        """Write the sums of the epoch so far to the progress; a host-device sync."""
        *self._progress.losses, skipped = self._sums.tolist()
        self._progress.epoch_skipped = round(skipped)


class Reporter:
    """Callbacks for the events of a training, in the main process alone. This class ignores them."""

    def resumed(self, history: list[Epoch]) -> None:
        """The training resumes from a checkpoint, after these epochs."""

    def epoch_begins(self, epoch: int, first: int, num_batches: int) -> None:
        """Epoch `epoch`, from 1, begins at batch `first`, from 0, of `num_batches`."""

    def step_taken(self) -> None:
        """One more step is finished."""

    def losses_read(self, num_steps: int, loss: float, lr: float) -> None:
        """`loss` is the mean total loss of the last steps, of `num_steps` since the start of the training."""

    def epoch_ended(self, history: list[Epoch]) -> None:
        """The last of these epochs has ended."""


def random_state() -> dict[str, Any]:
    """The state of every global random generator, as plain values and tensors.

    The training has generators of its own (see `ssd.seeding`), but a library may use the global ones.
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the state of every global random generator from `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
