"""A stage that cannot write ends with one line that names the file, and leaves what was there."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc_project import TINY
from file_limit import file_limit
from waiting import Ended

from ssd.files import sha256
from stages import export

PARAMS = {**TINY, "train.epochs": 1, "preprocess.workers": 1, "evaluate.resamples": 0}

FIRST_WRITES = {
    "download": "data/raw/shapes",
    "preprocess": "data",
    "train": "reports/train/priors.json",
    "evaluate": "reports/evaluate/detections.json",
    "export": "models/export",
    "report": "reports/history.png",
}
"""Of each stage, in their order, the first file of more than a few bytes, or its folder."""


def written(folder: Path) -> dict[str, str]:
    """Digests of what the stages write, at their places."""
    files = [path for name in ("data", "models", "reports") for path in (folder / name).rglob("*")]
    return {str(path.relative_to(folder)): sha256(path) for path in files if path.is_file()}


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long in export and writes nothing is left out."""
    for name in ("to_onnx", "to_torchscript"):
        monkeypatch.setattr(export, name, lambda *arguments: bytes(10_000))
    monkeypatch.setattr(export, "compare_files", lambda *arguments: {})
    for name in ("certify", "make_certificate", "make_golden"):
        monkeypatch.setattr(export, name, lambda *arguments: {})
    monkeypatch.setattr(export, "say", lambda *arguments: None)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_export")
def test_every_stage_on_a_full_disk(
    run_stage: Callable[..., Ended], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each runs, and then once more when there is no room."""
    for stage, place in FIRST_WRITES.items():
        assert run_stage(stage, **PARAMS).code == 0
        before = written(tmp_path)
        with file_limit(100), pytest.raises(SystemExit) as ended:
            importlib.import_module(f"stages.{stage}").main()
        assert (ended.value.code, written(tmp_path)) == (2, before), stage
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{place}: File too large; the largest size of a file here"), stage
