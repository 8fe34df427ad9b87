"""The devices that params ask for: a GPU, several, bfloat16, a compiler."""

from ssd.errors import UserError
from ssd.params import EvaluateParams, TrainParams
from ssd.preflight.finding import Finding


def check_devices(train: TrainParams, evaluate: EvaluateParams) -> list[Finding]:
    """Look for the devices of both sections; torch is only imported where they ask for one."""
    findings = _check_training(train)
    if evaluate.device == "cuda":
        from ssd.hardware import choose_device

        try:
            choose_device(evaluate.device, "evaluate.device")
        except UserError as error:
            findings.append(Finding.from_error(error))
    return findings


def _check_training(train: TrainParams) -> list[Finding]:
    if train.device != "cuda" and train.devices == "auto" and train.precision != "bf16" and not train.compile:
        return []
    from ssd.hardware import check_compiler, choose_device, multiplies_bf16
    from ssd.processes.launch import num_processes

    try:
        device = choose_device(train.device, "train.device")
    except UserError as error:
        return [Finding.from_error(error)]
    findings = []
    try:
        num_processes(train.devices, device)
    except UserError as error:
        findings.append(Finding.from_error(error))
    if train.precision == "bf16" and not multiplies_bf16(device):
        text = f"this {device.type} only emulates bfloat16, which is slower than fp32; auto or fp32 is faster"
        findings.append(Finding("train.precision", text, fatal=False))
    if train.compile:
        try:
            check_compiler(device)
        except UserError as error:
            findings.append(Finding.from_error(error))
    return findings
