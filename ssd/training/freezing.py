"""Parts of the backbone that stay as they were loaded."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssd.models.ssd import SSD


def freeze(model: SSD, num_stages: int, norms: bool) -> list[nn.Module]:
    """Freeze the first stages of the backbone, and perhaps all of its batch norms.

    Args:
        model: changed in place: what is frozen requires no gradient.
        num_stages: 0 none, 1 the stem, 2 the stem and layer1, ... 5 the whole backbone.
        norms: whether every batch norm of the backbone is frozen, those of trained stages too.

    Returns:
        The batch norms whose running statistics must not move; see `set_training`.
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
