"""The learning rate as a pure function of the step, and the one schedule that cannot be: plateau."""

import math
from dataclasses import dataclass

from ssd.params import TrainParams
from ssd.training.selection import Patience


def lr_factor(step: int, num_steps: int, params: TrainParams) -> float:
    """What `train.lr` is multiplied by at `step` (0-based) of `num_steps`.

    Warm-up is linear over `warmup_steps`. Then: cosine falls to 0 at the end (Loshchilov and Hutter,
    "SGDR", equation 5, one cycle); step multiplies by gamma at each milestone; plateau stays (see `Plateau`).
    """
    if step < params.warmup_steps:
        return (step + 1) / (params.warmup_steps + 1)
    if params.schedule == "cosine":
        done = (step - params.warmup_steps) / max(num_steps - params.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if params.schedule == "step":
        return params.gamma ** sum(step >= share * num_steps for share in params.milestones)
    return 1.0


@dataclass
class Plateau:
    """Lowers the learning rate when the validation score stops rising.

    factor: what the learning rate is multiplied by; best: highest score so far; waited: validations since,
    or since the last lowering.
    """

    factor: float = 1.0
    best: float = -math.inf
    waited: int = 0

    def observe(self, score: float, patience: int, gamma: float) -> None:
        """Take note of a validation; after `patience` of them without gain, multiply the factor by gamma."""
        counter = Patience(self.best, self.waited)
        counter.observe(score)
        if counter.exceeded(patience):
            self.factor, counter.waited = self.factor * gamma, 0
        self.best, self.waited = counter.best, counter.waited
