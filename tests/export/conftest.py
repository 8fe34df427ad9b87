"""The small detector and its two files, exported once for all processes of the tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from small_detector import CLASS_NAMES, SETTINGS, build_model

from ssd.detector import Detector
from ssd.export.onnx import to_onnx
from ssd.export.torchscript import to_torchscript


@pytest.fixture(scope="session")
def detector() -> Detector:
    return Detector(build_model(), SETTINGS)


@pytest.fixture(scope="session")
def onnx_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_once(tmp_path_factory, "ssd.onnx", lambda: to_onnx(detector, CLASS_NAMES, 18))


@pytest.fixture(scope="session")
def torchscript_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_once(tmp_path_factory, "ssd.torchscript.pt", lambda: to_torchscript(detector, CLASS_NAMES))


def written_once(factory: pytest.TempPathFactory, name: str, content: Callable[[], bytes]) -> Path:
    """A file in the folder that pytest-xdist's workers have in common, written by the first that needs it."""
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    path = folder / f"{name}-alone" / name
    with FileLock(folder / f"{name}.lock"):
        if not path.exists():
            path.parent.mkdir()
            path.write_bytes(content())
    return path
