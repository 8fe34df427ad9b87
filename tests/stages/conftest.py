"""Stages as `python -m stages.NAME` runs them, in the process of the tests: no start-up to wait for."""

import importlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from default_params import default_text
from waiting import Ended


@pytest.fixture
def run_stage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., Ended]]:
    """run_stage("train", **{"train.lr": 0.1}): run a stage in `tmp_path` by params with changes.

    What follows its name are its arguments: run_stage("pack", "0").
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for name in ("DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)

    def run(name: str, *arguments: str, **changes: object) -> Ended:
        (tmp_path / "params.yaml").write_text(default_text(**{"tracking.enabled": False, **changes}))
        monkeypatch.chdir(tmp_path)
        code: object = 0
        try:
            importlib.import_module(f"stages.{name}").main(arguments)
        except SystemExit as end:
            code = end.code
        assert isinstance(code, int)
        return Ended(code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
