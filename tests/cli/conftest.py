"""The command `ssd` in the test's own process, which has imported torch already."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from small_detector import build_model
from waiting import Ended

from cli.main import main
from ssd.loss import LossSettings
from ssd.models.saved import save_model
from ssd.source.glyphs import GLYPHS


@pytest.fixture
def run_ssd(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """run_ssd("evaluate", model): its exit code, and what it printed."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def glyph_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.pt of the embedded data set's classes with random weights, which detects dozens of things."""
    model = build_model(num_classes=len(GLYPHS))
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, model.state_dict(), model.config, GLYPHS, asdict(LossSettings()))
    return path
