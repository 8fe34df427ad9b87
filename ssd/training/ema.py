"""The exponential moving average of the weights, which often detects better than the weights themselves."""

import copy

import torch

from ssd.models.ssd import SSD


class Average:
    """A copy of a model whose weights and running statistics follow it slowly.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that the random start is soon forgotten
    (as TensorFlow's ExponentialMovingAverage does with num_updates). Torch's AveragedModel would wait for a
    GPU at every step.

    Attributes:
        model: the average, in eval mode.
        num_updates: so far; part of a checkpoint, beside the state of `model`.
    """

    def __init__(self, model: SSD, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: SSD) -> None:
        """Follow `model` by one step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages, values = list(self.model.state_dict().values()), list(model.state_dict().values())
        floats = [index for index, value in enumerate(values) if value.is_floating_point()]
        torch._foreach_lerp_([averages[i] for i in floats], [values[i] for i in floats], 1 - decay)
