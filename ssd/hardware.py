"""Choice of device, precision and kernels."""

import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from ssd.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Hardware:
    """A device and the autocast dtype of convolutions; parameters, losses and boxes stay float32."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[None]:
        """The autocast context for the forward pass of the network."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


def choose_hardware(
    device: str, precision: str, key: str = "train.device", *, local_rank: int = 0
) -> Hardware:
    """Resolve a device and a precision.

    Args:
        device: auto (cuda where there is one), cpu or cuda.
        precision: auto (bf16 where the hardware multiplies it: AMX, AVX-512, or a GPU since Ampere; else
            fp32), fp32, bf16 or fp16. Gradients of fp16 underflow without loss scaling.
        key: the parameter that `device` comes from, for the error message.
        local_rank: rank of this process on this machine, which is the index of its GPU.

    Raises:
        UserError: cuda is requested but not available.
    """
    chosen = choose_device(device, key, local_rank=local_rank)
    if precision == "auto":
        precision = "bf16" if multiplies_bf16(chosen) else "fp32"
    if precision == "fp32":
        # TF32 convolutions have a lower precision than float32.
        torch.backends.cudnn.allow_tf32 = False
    return Hardware(chosen, DTYPES[precision])


def choose_device(device: str, key: str, *, local_rank: int = 0) -> torch.device:
    """The device part of `choose_hardware`.

    Raises:
        UserError: cuda is requested but not available.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise UserError("found 'cuda' but torch sees no GPU; allowed here: auto, cpu", key=key)
    return torch.device("cuda", local_rank) if has_cuda and device != "cpu" else torch.device("cpu")


def choose_kernels(device: torch.device, deterministic: bool) -> None:
    """Set how cuBLAS and cuDNN choose kernels on a GPU, for the whole process; without effect on a CPU.

    Call it before the first matrix product on the GPU: cuBLAS reads its setting once.

    Args:
        device: the training device. A CPU is deterministic without it, with the same number of threads.
        deterministic: only deterministic kernels (PyTorch raises RuntimeError where an operation has
            none); otherwise the kernels that are fastest on the first batch of each size.
    """
    if device.type != "cuda":
        return
    if deterministic:
        # 8 buffers of 4 MiB: one of the two values with which cuBLAS is deterministic.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


def check_compiler(device: torch.device) -> None:
    """Check that torch.compile can translate a network for `device`.

    Raises:
        UserError: the device is a CPU, and there is no C++ compiler.
    """
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if device.type == "cpu" and not any(shutil.which(name) for name in compilers):
        raise UserError(
            "on a CPU it needs a C++ compiler, and there is no g++ or clang++; install one, or set "
            "it to false",
            key="train.compile",
        )


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself, so that it is faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Twice float32's speed on both (benchmarks/README.md).
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
