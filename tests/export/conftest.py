"""The small detector and its two files, exported once."""

from pathlib import Path

import pytest
from small_detector import CLASS_NAMES, SETTINGS, build_model

from ssd.detector import Detector
from ssd.export.onnx import to_onnx
from ssd.export.torchscript import to_torchscript


@pytest.fixture(scope="session")
def detector() -> Detector:
    return Detector(build_model(), SETTINGS)


@pytest.fixture(scope="session")
def onnx_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "ssd.onnx"
    path.write_bytes(to_onnx(detector, CLASS_NAMES, 18))
    return path


@pytest.fixture(scope="session")
def torchscript_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("torchscript") / "ssd.torchscript.pt"
    path.write_bytes(to_torchscript(detector, CLASS_NAMES))
    return path
