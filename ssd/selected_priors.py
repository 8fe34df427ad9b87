"""Some priors of a batch: gathered where that saves work, masked where it would stall a queue."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def may_look(tensor: Tensor) -> bool:
    """Whether values may decide what is computed next: on a CPU, unless a graph is being recorded."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return False
    return tensor.device.type == "cpu"


@dataclass(frozen=True)
class Selection:
    """The priors of a mask [B, P].

    On a CPU only they are computed: a hundredth of all, mostly. Elsewhere all are, so that no shape depends
    on the data, and only they are summed.

    rows: int64 [R], what is computed, as rows of the flattened batch [B * P]; mask: bool [R], what counts of
    it, None for all; num_priors: P.
    """

    rows: Tensor
    mask: Tensor | None
    num_priors: int

    @staticmethod
    def of(mask: Tensor) -> "Selection":
        """Select by a mask, bool [B, P]."""
        if may_look(mask):
            # A third of the time of torch's own nonzero.
            return Selection(torch.from_numpy(np.flatnonzero(mask.numpy())), None, mask.shape[1])
        return Selection(torch.arange(mask.numel(), device=mask.device), mask.flatten(), mask.shape[1])

    @property
    def count(self) -> Tensor:
        """How many are selected: int64 scalar, not waited for."""
        return torch.tensor(len(self.rows)) if self.mask is None else self.mask.sum()

    @property
    def images(self) -> Tensor:
        """Index of the image of each row: int64 [R]."""
        return self.rows // self.num_priors

    @property
    def priors(self) -> Tensor:
        """Index of the prior of each row: int64 [R]."""
        return self.rows % self.num_priors

    def take(self, values: Tensor) -> Tensor:
        """The rows of [B, P, ...]: [R, ...]."""
        flat = values.flatten(0, 1)
        return flat if len(self.rows) == len(flat) else flat.index_select(0, self.rows)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of [R] values over what is selected."""
        return (values if self.mask is None else torch.where(self.mask, values, 0)).sum()
