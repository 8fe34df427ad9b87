"""The name of a training: the same for the same settings, data and code, another for any other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ssd.files import sha256


def fingerprint(settings: Mapping[str, object], files: Sequence[Path], code: Path) -> str:
    """16 hex digits of a SHA-256 over all that decides the result of a training.

    Names of data files, the order of keys and the place of the checkout do not count.

    Args:
        settings: plain values, as JSON knows them.
        files: data, in an order that means something: the training images first, say.
        code: folder of the package. All its Python files count, with their place in it: a training that
            began with other code must not go on with this one.

    Raises:
        ValueError, TypeError: a setting is NaN or infinite, or nothing that JSON knows.
        OSError: a file cannot be read.
    """
    content = {
        "settings": settings,
        "files": [sha256(path) for path in files],
        "code": {path.relative_to(code).as_posix(): sha256(path) for path in code.rglob("*.py")},
        "torch": torch.__version__,
    }
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
