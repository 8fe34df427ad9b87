"""The devices that params ask for: a GPU, several, bfloat16, a compiler."""

from typing import TYPE_CHECKING

from ssd.params import EvaluateParams, TrainParams
from ssd.preflight.finding import Finding, collected

if TYPE_CHECKING:
    import torch


def check_devices(train: TrainParams, evaluate: EvaluateParams) -> list[Finding]:
    """Look for the devices of both sections; torch is only imported where they ask for one."""
    findings = _check_training(train)
    if evaluate.device == "cuda":
        from ssd.hardware import choose_device

        with collected(findings):
            choose_device(evaluate.device, "evaluate.device")
    return findings


def _check_training(train: TrainParams) -> list[Finding]:
    if train.device != "cuda" and train.devices == "auto" and train.precision != "bf16" and not train.compile:
        return []
    from ssd.hardware import choose_device

    findings: list[Finding] = []
    with collected(findings):
        device = choose_device(train.device, "train.device")
        findings += _check_device(train, device)
    return findings


def _check_device(train: TrainParams, device: "torch.device") -> list[Finding]:
    """Look for what training needs of its device."""
    from ssd.hardware import check_compiler, multiplies_bf16
    from ssd.processes.launch import num_processes

    findings: list[Finding] = []
    with collected(findings):
        num_processes(train.devices, device)
    if train.precision == "bf16" and not multiplies_bf16(device):
        text = f"this {device.type} only emulates bfloat16, which is slower than fp32; auto or fp32 is faster"
        findings.append(Finding("train.precision", text, fatal=False))
    if train.compile:
        with collected(findings):
            check_compiler(device)
    return findings
