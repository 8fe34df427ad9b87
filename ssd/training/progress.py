"""Where a training stands between two steps: with the weights, all that a checkpoint holds."""

import random
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from ssd.training.history import Epoch
from ssd.training.schedule import Plateau
from ssd.training.selection import Patience


@dataclass
class Progress:
    """Counters, sums and scores of a training.

    epoch: epochs that have ended; batch: batches done of the next one; losses: sums of (total, loc, conf)
    over its steps; left_out: those of its steps that were left out, and skipped: of the whole training;
    trained_seconds, waited_seconds: spent in the steps of this epoch, and in waiting for their data.
    """

    epoch: int = 0
    batch: int = 0
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    left_out: int = 0
    skipped: int = 0
    trained_seconds: float = 0.0
    waited_seconds: float = 0.0
    finished: bool = False
    history: list[Epoch] = field(default_factory=list)
    plateau: Plateau = field(default_factory=Plateau)
    patience: Patience = field(default_factory=Patience)

    def start_epoch(self) -> None:
        """Count an epoch as ended and begin the next."""
        self.epoch += 1
        self.batch = self.left_out = 0
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


def random_state() -> dict[str, Any]:
    """The state of every global random generator, as plain values and tensors.

    The training draws from generators of its own (see `ssd.seeding`), but a library might not.
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
    """Put every global random generator back to where `random_state` saw it."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
