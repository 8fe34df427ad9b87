"""Hardware: what is asked for is what computes, and what cannot be had is one clear line."""

import os
from collections.abc import Iterator

import pytest
import torch

from ssd.errors import UserError
from ssd.hardware import choose_hardware, choose_kernels


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that believes in GPUs; no test computes on them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


@pytest.fixture
def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def kernels() -> Iterator[None]:
    """Puts back what `choose_kernels` sets for the whole process."""
    cudnn, workspace = torch.backends.cudnn, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    before = cudnn.deterministic, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    yield
    cudnn.deterministic, cudnn.benchmark = before[:2]
    torch.use_deterministic_algorithms(before[2])
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if workspace is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace


@pytest.mark.usefixtures("no_gpus")
def test_cuda_without_a_gpu_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="^evaluate.device: found 'cuda'.*allowed here: auto, cpu$"):
        choose_hardware("cuda", "auto", "evaluate.device")


@pytest.mark.usefixtures("no_gpus")
@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_convolutions_run_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    hardware = choose_hardware("auto", precision)
    assert hardware.device == torch.device("cpu")
    convolution = torch.nn.Conv2d(3, 4, 3)
    with hardware.autocast():
        assert convolution(torch.rand(1, 3, 8, 8)).dtype == dtype
    assert convolution.weight.dtype == torch.float32


@pytest.mark.usefixtures("no_gpus")
@pytest.mark.parametrize(
    ("amx", "avx512", "dtype"),
    [(True, False, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_auto_takes_bf16_only_where_the_hardware_multiplies_it(
    amx: bool, avx512: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert choose_hardware("cpu", "auto").dtype == dtype


@pytest.mark.usefixtures("gpus")
def test_each_process_of_a_machine_has_a_gpu_of_its_own() -> None:
    devices = [choose_hardware("auto", "bf16", local_rank=rank).device for rank in range(3)]
    assert devices == [torch.device("cuda", rank) for rank in range(3)]
    assert choose_hardware("cpu", "bf16", local_rank=1).device == torch.device("cpu")


@pytest.mark.usefixtures("kernels")
def test_deterministic_kernels_are_asked_of_every_library() -> None:
    choose_kernels(torch.device("cuda"), deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


@pytest.mark.usefixtures("kernels")
def test_otherwise_a_gpu_tries_kernels_and_a_cpu_is_left_alone() -> None:
    choose_kernels(torch.device("cuda"), deterministic=False)
    assert torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    choose_kernels(torch.device("cpu"), deterministic=True)
    assert torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
