"""Schedules of learning rate and input size, as pure functions of the step.

Only the schedule plateau cannot be such a function, see `ssd.training.selection.Plateau`.
"""

import math

import torch

from ssd.params import TrainParams
from ssd.seeding import seeded

STRIDE = 32  # of the backbone's last feature map: sizes between its multiples only shift its borders
SMALLEST = 64


def learning_rate(step: int, num_steps: int, params: TrainParams) -> float:
    """The learning rate at `step` (0-based) of `num_steps`, of parameters whose factor is 1.

    Learning rate warm-up is linear over `warmup_steps`. Then: cosine falls to 0 at the end (Loshchilov and
    Hutter, "SGDR", equation 5, one cycle); step multiplies by gamma at each milestone, a fraction of
    `num_steps`; constant and plateau stay at the peak (plateau is lowered by `Plateau`).
    """
    return params.lr * _lr_factor(step, num_steps, params)


def _lr_factor(step: int, num_steps: int, params: TrainParams) -> float:
    if step < params.warmup_steps:
        return (step + 1) / (params.warmup_steps + 1)
    if params.schedule == "cosine":
        done = (step - params.warmup_steps) / max(num_steps - params.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if params.schedule == "step":
        return params.gamma ** sum(step >= share * num_steps for share in params.milestones)
    return 1.0


def side_of_batch(params: TrainParams, input_size: int, epoch: int, batch: int) -> int:
    """Side in pixels of the images of a step: `input_size`, unless one of these is enabled.

    Progressive resizing: the first `small_epochs` train at `small_scale` of the input size (Howard, "Training
    Imagenet in 3 hours", 2018). Multi-scale: each batch has a side of its own, drawn from 1 +- `multi_scale`
    of it (Redmon and Farhadi, "YOLO9000", 2017, section 2). Both in multiples of 32.

    Args:
        params: the `train` section.
        input_size: full size, pixels.
        epoch, batch: counted from 0; with the seed they determine the draw.
    """
    scale = params.small_scale if epoch < params.small_epochs else 1.0
    if params.multi_scale > 0:
        draw = float(torch.rand((), generator=seeded("size", params.seed, epoch, batch)))
        scale *= 1 + params.multi_scale * (2 * draw - 1)
    if scale == 1.0:
        return input_size
    return max(round(input_size * scale / STRIDE) * STRIDE, SMALLEST)


def sizes_vary(params: TrainParams) -> bool:
    """Whether steps have different input sizes."""
    return params.multi_scale > 0 or (params.small_epochs > 0 and params.small_scale < 1)
