"""`model.pt`: weights, config and class names, sufficient to rebuild the network; loads without pickle."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ssd.errors import UserError
from ssd.files import write_bytes
from ssd.models.config import SSDConfig
from ssd.models.ssd import SSD

MODEL_FORMAT = "ssd-model-3"


def save_model(
    path: str | Path, weights: dict[str, Tensor], config: SSDConfig, class_names: Sequence[str]
) -> None:
    """Write a model file atomically. The same content gives the same bytes, whatever the file's name."""
    content = {
        "format": MODEL_FORMAT,
        "config": asdict(config),
        "class_names": list(class_names),
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
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: not found", path=path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (torch raises a dozen types)
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"{path}: not a model file, or damaged ({reason})", path=path) from None
    if not isinstance(content, dict) or content.get("format") != MODEL_FORMAT:
        raise UserError(f"{path}: not a model file of format {MODEL_FORMAT}", path=path)
    model = SSD(SSDConfig.from_state(content["config"]))
    model.load_state_dict(content["weights"])
    return model.eval(), content["class_names"]
