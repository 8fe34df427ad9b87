"""`model.pt`: weights, config, class names, and settings of the training loss.

It is a file of `torch.save`, which `torch.load` reads without pickle, with a SHA-256 of its content at its
end.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd.errors import UserError, first_line, is_out_of_memory
from ssd.files import write_bytes
from ssd.models.family import Config, Model, config_from_state, new_model

FORMATS = b"ssd-model-"
"""Beginning of the seal of every version."""

MODEL_FORMAT = "ssd-model-4"
SEAL = f"{MODEL_FORMAT} ".encode()
DIGEST_LENGTH = 64  # hex digits of SHA-256


def save_model(
    path: str | Path,
    weights: dict[str, Tensor],
    config: Config,
    class_names: Sequence[str],
    loss_settings: Mapping[str, float | str],
) -> None:
    """Write a model file atomically. The same content gives the same bytes, whatever the file's name.

    Args:
        class_names: without background; loss_settings: those of the criterion that the network was
            trained with.
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
    write_bytes(path, sealed_zip(buffer.getvalue(), SEAL))


def load_model(path: str | Path) -> tuple[Model, list[str]]:
    """Rebuild a network, in eval mode on the CPU, and its class names (without background).

    Raises:
        UserError: the file is missing, unreadable, damaged or of another format, or the libraries here build
            its network in another way.
    """
    content = _read(Path(path))
    model = new_model(config_from_state(content["config"]))
    try:
        model.load_state_dict(content["weights"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: its weights do not fit {model.config.backbone} as the torchvision or timm that is "
            f"installed builds it ({reason}); install the version that it was trained with, or train again"
        ) from None
    return model.eval(), content["class_names"]


def is_model_file(path: str | Path) -> bool:
    """Whether a file ends as `save_model` writes it, in this version or another."""
    try:
        return Path(path).read_bytes()[-len(SEAL) - DIGEST_LENGTH :].startswith(FORMATS)
    except OSError:
        return False


def load_loss_settings(path: str | Path) -> dict[str, Any]:
    """The settings of the loss that the network was trained with, as they were given to `save_model`.

    Raises:
        UserError: as `load_model`.
    """
    settings: dict[str, Any] = _read(Path(path))["loss_settings"]
    return settings


def sealed_zip(archive: bytes, seal: bytes) -> bytes:
    """A zip file with `seal` and the SHA-256 of all bytes before the digest as its comment, at the end.

    Zip readers, torch's included, pass over a comment.
    """
    assert archive[-22:-18] == b"PK\5\6", "torch ends a zip file without a comment"
    content = archive[:-2] + (len(seal) + DIGEST_LENGTH).to_bytes(2, "little") + seal
    return content + hashlib.sha256(content).hexdigest().encode()


def _read(path: Path) -> dict[str, Any]:
    """The content of a model file, which is parsed only if it is what was written."""
    if not path.is_file():
        raise UserError(f"{path}: not found", path=path)
    try:
        data = path.read_bytes()
        _check_seal(path, data)
        content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 (torch raises a dozen types)
        if is_out_of_memory(error):
            raise UserError(f"{path}: not enough memory to read it: {first_line(error)}") from None
        raise UserError(f"{path}: does not load without pickle: {first_line(error)}", path=path) from None
    return content


def _check_seal(path: Path, data: bytes) -> None:
    """Raise UserError unless `data` ends with a comment as `sealed_zip` writes it, with the right digest."""
    content, digest = memoryview(data)[:-DIGEST_LENGTH], data[-DIGEST_LENGTH:]
    if content[-len(SEAL) :] != SEAL:
        raise UserError(f"{path}: not a model file of format {MODEL_FORMAT}, or cut short", path=path)
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise UserError(f"{path}: damaged: its content does not match its SHA-256", path=path)
