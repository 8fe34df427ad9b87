"""The optimiser that params ask for; weight decay on convolution weights only, learning rates by depth."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ssd.models.ssd import SSD
from ssd.params import TrainParams


def build_optimizer(model: SSD, params: TrainParams) -> Optimizer:
    """SGD with momentum, Adam or AdamW over the parameters that require a gradient.

    Norms and biases (every parameter of fewer than two dimensions) have no weight decay. Each group has a
    `lr_scale`, its factor of the learning rate (see `lr_scales`). The fused kernels do the whole update in
    one pass, and skip it where the tensor `found_inf` of the optimiser says so.
    """
    scales = lr_scales(model, params)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((scales[name], parameter.ndim > 1), []).append(parameter)
    # Sorted, so that a checkpoint finds the same groups again.
    param_groups = [
        {
            "params": groups[scale, decays],
            "weight_decay": params.weight_decay if decays else 0.0,
            "lr_scale": scale,
        }
        for scale, decays in sorted(groups, reverse=True)
    ]
    match params.optimizer:
        case "sgd":
            return _sgd(param_groups, params)
        case "adam":
            return torch.optim.Adam(param_groups, lr=params.lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(param_groups, lr=params.lr, fused=True)


def _sgd(param_groups: list[dict[str, Any]], params: TrainParams) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(param_groups, lr=params.lr, momentum=params.momentum, fused=True)
    if params.momentum > 0:
        # The fused kernel would leave its buffers uninitialised where the first step is skipped.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def lr_scales(model: SSD, params: TrainParams) -> dict[str, float]:
    """The factor of the learning rate of each parameter, by its name.

    1 outside the backbone; `backbone_lr` for the backbone's last stage, and `layer_decay` times less for
    each stage before it (Howard and Ruder, "Universal Language Model Fine-tuning", 2018, section 3.2).
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales = dict.fromkeys(names.values(), 1.0)
    for depth, stage in enumerate(reversed(model.backbone.stages())):
        scale = params.backbone_lr * params.layer_decay**depth
        scales.update({names[id(p)]: scale for module in stage for p in module.parameters()})
    return scales
