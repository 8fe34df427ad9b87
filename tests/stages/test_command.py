"""Every stage ends a user's mistake with one line and exit code 2, before any work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
STAGES = ("download", "preprocess", "train", "evaluate", "export")


def run(stage: str, folder: Path, old: str = "", new: str = "") -> subprocess.CompletedProcess[str]:
    """Run a stage in `folder` with the repository's params, one text replaced."""
    text = (REPOSITORY / "params.yaml").read_text()
    assert old in text
    (folder / "params.yaml").write_text(text.replace(old, new, 1))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_bad_param_of_any_section_stops_every_stage(stage: str, tmp_path: Path) -> None:
    result = run(stage, tmp_path, "opset: 18", "opset: banana")
    assert result.returncode == 2
    assert result.stderr.strip() == "params.yaml: export.opset: found 'banana'; allowed: integer"
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_missing_folder_of_one_s_own_is_named(tmp_path: Path) -> None:
    result = run("download", tmp_path, "source: shapes ", "source: voc_dir")
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("params.yaml: data.path:")
    assert "data/own" in result.stderr


@pytest.mark.parametrize("stage", ["download", "train"])
def test_a_missing_weights_file_is_said_before_any_work(stage: str, tmp_path: Path) -> None:
    result = run(stage, tmp_path, "weights: none ", "weights: mine.pth ")
    assert result.returncode == 2
    assert result.stderr.startswith("params.yaml: model.weights: found 'mine.pth', no such file; allowed: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("preprocess", "data/raw"),
        ("train", "train.safetensors"),
        ("evaluate", "test.safetensors"),
        ("export", "model.pt"),
    ],
)
def test_a_missing_input_is_one_line(stage: str, missing: str, tmp_path: Path) -> None:
    result = run(stage, tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert missing in result.stderr
