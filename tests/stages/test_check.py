"""`make check`, and the same check at the beginning of download and preprocess."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from loopback import Loopback
from waiting import Ended

from ssd.fetch import RemoteFile
from ssd.preflight import hosts, sources
from ssd.source import download as downloading
from ssd.source.public_sets import ARCHIVES

RunStage = Callable[..., Ended]
ALL_MISSING: dict[str, Any] = {
    "data.source": "voc2007",
    "model.weights": "mine.pth",
    "train.device": "cuda",
    "evaluate.device": "cuda",
}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network, a GPU and disk space."""
    monkeypatch.setattr(hosts, "unavailable_reason", lambda *_: "no connection")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("stage", ["check", "download", "preprocess"])
def test_all_that_is_missing_is_said_at_once_before_any_work(
    stage: str, run_stage: RunStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "fetch", lambda *_, **__: pytest.fail("nothing may be fetched"))
    ended = run_stage(stage, **ALL_MISSING)
    assert ended.code == 2
    keys = [line.split(": ")[1] for line in ended.stderr.splitlines()]
    assert keys == [
        "model.weights",
        "data.archives",
        "data.archives",
        "data.source",
        "train.device",
        "evaluate.device",
    ]
    assert all(line.startswith("params.yaml: ") for line in ended.stderr.splitlines())
    assert ended.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_where_nothing_is_missing_it_is_one_line_and_nothing_is_written(
    run_stage: RunStage, tmp_path: Path
) -> None:
    ended = run_stage("check", **{"train.device": "cpu", "train.precision": "fp32"})
    assert (ended.code, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    assert line.startswith("nothing is missing: shapes; resnet18, weights: none; cpu in float32; ")
    assert line.endswith(" GB needed")
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_warning_stops_nothing(run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd.hardware.multiplies_bf16", lambda _: False)
    ended = run_stage("check", **{"train.device": "cpu", "train.precision": "bf16"})
    assert ended.code == 0
    assert ended.stderr.startswith("warning: params.yaml: train.precision: this cpu only emulates bfloat16")
    assert ended.stdout.startswith("nothing is missing")


def test_a_temporary_experiment_looks_in_the_main_workspace(
    run_stage: RunStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC_ROOT names it; weights, archives and folders of one's own are relative to it."""
    main = tmp_path / "main"
    (main / "own").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(main))
    ended = run_stage("check", **{"model.weights": "mine.pth", "data.source": "yolo_dir", "data.path": "own"})
    assert f"model.weights: {main}/mine.pth: no such file" in ended.stderr
    assert "own holds no images" in ended.stderr


def test_download_fetches_nothing_while_weights_are_missing(
    run_stage: RunStage, server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive could be had; it is asked for, and left where it is."""
    url = server.serve("/PennFudanPed.zip", b"archive")
    (archive,) = ARCHIVES["penn_fudan"]
    tiny = replace(archive, file=RemoteFile("PennFudanPed.zip", 7, "", (url,)))
    for module in (downloading, sources):
        monkeypatch.setattr(module, "ARCHIVES", {"penn_fudan": (tiny,)})
    ended = run_stage("download", **{"data.source": "penn_fudan", "model.weights": "mine.pth"})
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"params.yaml: model.weights: {tmp_path / 'mine.pth'}: no such file")
    assert (server.heads, server.requests) == (["/PennFudanPed.zip"], [])
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
