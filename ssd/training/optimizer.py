"""Optimiser, learning rate factors, frozen layers, and exponential moving average (EMA) of the weights."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ssd.models.family import Model
from ssd.params import TrainParams


def build_optimizer(model: Model, params: TrainParams) -> Optimizer:
    """SGD with momentum, Adam or AdamW over the parameters that require a gradient.

    Normalisation layers and biases (every parameter of fewer than two dimensions) have no weight decay. Each
    group has a `lr_scale`, its factor of the learning rate (see `lr_scales`). The fused kernels do the whole
    update in one pass, and skip it where the tensor `found_inf` of the optimiser is not 0.
    """
    scales = lr_scales(model, params)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((scales[name], parameter.ndim > 1), []).append(parameter)
    # Sorted, so that the order of the groups is the same when a checkpoint is loaded.
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


def lr_scales(model: Model, params: TrainParams) -> dict[str, float]:
    """The factor of the learning rate of each parameter, by its name.

    1 outside the backbone; `backbone_lr` for the backbone's last stage, multiplied by `layer_decay` for each
    stage before it (Howard and Ruder, "Universal Language Model Fine-tuning", 2018, section 3.2).
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales = dict.fromkeys(names.values(), 1.0)
    for depth, stage in enumerate(reversed(model.backbone.stages())):
        scale = params.backbone_lr * params.layer_decay**depth
        scales.update({names[id(p)]: scale for module in stage for p in module.parameters()})
    return scales


def freeze(model: Model, num_stages: int, norms: bool) -> list[nn.Module]:
    """Freeze the first stages of the backbone, and optionally all of its batch norms.

    Args:
        model: changed in place: frozen parameters require no gradient.
        num_stages: 0 none, 1 the stem, 2 the stem and layer1, ... 5 the whole backbone.
        norms: whether every batch norm of the backbone is frozen, those of trained stages too.

    Returns:
        The batch norms whose running statistics must not change; see `set_training`.
    """
    stages = model.backbone.stages()
    frozen = [module for stage in stages[:num_stages] for module in stage]
    if norms:
        frozen += _norms_of([module for stage in stages for module in stage])
    for module in frozen:
        module.requires_grad_(False)
    return list(dict.fromkeys(_norms_of(frozen)))


def set_training(model: nn.Module, frozen_norms: list[nn.Module]) -> None:
    """`model.train()` that leaves the frozen batch norms in eval mode."""
    model.train()
    for norm in frozen_norms:
        norm.eval()


def _norms_of(modules: list[nn.Module]) -> list[nn.Module]:
    return [part for module in modules for part in module.modules() if isinstance(part, _BatchNorm)]


class EMA:
    """Exponential moving average (EMA) of the weights and batch norm running statistics.

    It often detects better than the weights themselves. After n updates the decay is
    min(decay, (1 + n) / (10 + n)), so that the random initial weights soon lose their influence (as in
    TensorFlow's ExponentialMovingAverage with num_updates). Torch's AveragedModel has a host-device sync per
    step.

    Attributes:
        model: the average, in eval mode.
        num_updates: so far; part of a checkpoint, beside the state of `model`.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: Model) -> None:
        """Update the average by one step of `model`."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        averages, values = list(self.model.state_dict().values()), list(model.state_dict().values())
        floats = [index for index, value in enumerate(values) if value.is_floating_point()]
        torch._foreach_lerp_([averages[i] for i in floats], [values[i] for i in floats], 1 - decay)
