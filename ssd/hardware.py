"""Which device computes, and in which precision."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ssd.errors import UserError


@dataclass(frozen=True)
class Hardware:
    """A device and the dtype of its convolutions; parameters, losses and boxes stay float32."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which the network runs."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


def choose_hardware(device: str, precision: str, key: str = "train.device") -> Hardware:
    """Resolve a device and a precision of params.yaml.

    Args:
        device: auto (cuda where there is one), cpu or cuda.
        precision: auto (bf16 where the hardware multiplies it: AMX, or a GPU since Ampere), fp32 or bf16.
        key: where `device` stands in params.yaml, for the message.

    Raises:
        UserError: cuda is asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UserError(f"params.yaml: {key}: found 'cuda' but torch sees no GPU; allowed here: auto, cpu")
    chosen = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(chosen) else "fp32"
    if precision == "fp32":
        # Convolutions in TF32 would be float32 in name only.
        torch.backends.cudnn.allow_tf32 = False
    return Hardware(chosen, torch.bfloat16 if precision == "bf16" else torch.float32)


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())
