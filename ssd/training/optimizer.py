"""The optimiser that params ask for; weight decay on convolution weights only."""

import torch
from torch import nn
from torch.optim import Optimizer

from ssd.params import TrainParams


def build_optimizer(model: nn.Module, params: TrainParams) -> Optimizer:
    """SGD with momentum, Adam or AdamW over the parameters that require a gradient.

    Norms and biases (every parameter of fewer than two dimensions) have no weight decay. The fused
    kernels do the whole update in one pass.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    match params.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=params.lr, momentum=params.momentum, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=params.lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=params.lr, fused=True)
