"""The check of devices: a GPU that is not there, too few of them, bfloat16, a compiler."""

import shutil

import pytest
import torch
from default_params import default_params

from ssd import hardware
from ssd.preflight.devices import check_devices
from ssd.preflight.finding import Finding


def check(**changes: object) -> list[Finding]:
    params = default_params(**{key.replace("_", ".", 1): value for key, value in changes.items()})
    return check_devices(params.train, params.evaluate)


def have_gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_the_default_asks_for_nothing() -> None:
    assert check() == []


def test_a_gpu_that_is_not_there_is_found_for_both_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    have_gpus(0, monkeypatch)
    text = "found 'cuda' but torch sees no GPU; allowed here: auto, cpu"
    assert check(train_device="cuda", evaluate_device="cuda") == [
        Finding("train.device", text),
        Finding("evaluate.device", text),
    ]
    have_gpus(1, monkeypatch)
    assert check(train_device="cuda", evaluate_device="cuda") == []


def test_more_devices_than_gpus_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    have_gpus(2, monkeypatch)
    assert check(train_devices=2) == []
    (finding,) = check(train_devices=3)
    assert finding == Finding(
        "train.devices", "found 3, but torch sees 2 GPUs; allowed here: auto, 1 to 2", fatal=True
    )


def test_bf16_that_is_only_emulated_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda _: False)
    (finding,) = check(train_precision="bf16", train_device="cpu")
    assert (finding.key, finding.fatal) == ("train.precision", False)
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda _: True)
    assert check(train_precision="bf16", train_device="cpu") == []


def test_compiling_without_a_compiler_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    (finding,) = check(train_compile=True, train_device="cpu")
    assert finding.key == "train.compile"
    assert "needs a C++ compiler" in finding.text
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert check(train_compile=True, train_device="cpu") == []
