"""`model.pt`: weights, config, class names, and settings of the training loss; loads without pickle."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd.errors import UserError
from ssd.files import write_bytes
from ssd.models.config import SSDConfig
from ssd.models.ssd import SSD

MODEL_FORMAT = "ssd-model-3"


def save_model(
    path: str | Path,
    weights: dict[str, Tensor],
    config: SSDConfig,
    class_names: Sequence[str],
    loss_settings: Mapping[str, float | str],
) -> None:
    """Write a model file atomically. The same content gives the same bytes, whatever the file's name.

    Args:
        class_names: without background; loss_settings: the fields of the `ssd.loss.LossSettings` that the
            network was trained with.
    """
    content = {
        "format": MODEL_FORMAT,
        "config": asdict(config),
        "class_names": list(class_names),
        "loss_settings": dict(loss_settings),
        "weights": {name: value.detach().cpu().contiguous() for name, value in weights.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_model(path: str | Path) -> tuple[SSD, list[str]]:
    """Rebuild a network, in eval mode on the CPU, and its class names (without background).

    Raises:
        UserError: the file is missing, damaged, of another format, or does not load without pickle.
    """
    content = _read(Path(path))
    model = SSD(SSDConfig.from_state(content["config"]))
    model.load_state_dict(content["weights"])
    return model.eval(), content["class_names"]


def load_loss_settings(path: str | Path) -> dict[str, Any]:
    """The settings of the loss that the network was trained with, as they were given to `save_model`.

    Raises:
        UserError: as `load_model`.
    """
    settings: dict[str, Any] = _read(Path(path))["loss_settings"]
    return settings


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: not found", path=path)
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # noqa: BLE001 (torch raises a dozen types)
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path}: not a model file, or damaged ({reason})", path=path) from None
    if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
        raise UserError(f"{path}: not a model file of format {MODEL_FORMAT}", path=path)
    return content
