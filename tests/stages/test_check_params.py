"""The check before all stages: a mistake in the params costs nothing."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from default_params import default_content
from dvc.fs import localfs
from dvc.rwlock import RWLockFileCorruptedError, _edit_rwlock
from ruamel.yaml import YAML
from waiting import Ended

from tests.torture.kills import CUT_OFF

REPORT = "reports/check_params.txt"

REPOSITORY = Path(__file__).parents[2]

Run = Callable[..., Ended]


def write_lock(folder: Path, **changes: object) -> None:
    """A dvc.lock, as of a training by the default params with changes."""
    content = default_content(**changes)
    sections = {name: content[name] for name in ("model", "augment", "train")}
    stages = {"train": {"params": {"params.yaml": sections}}}
    YAML().dump({"schema": "2.0", "stages": stages}, folder / "dvc.lock")


def test_it_writes_the_same_whatever_the_params_are(run_stage: Run, tmp_path: Path) -> None:
    written = []
    for changes in ({}, {"train.lr": 0.1, "tracking.run_name": "mine"}):
        assert run_stage("check_params", **changes) == Ended(0, "", "")
        written.append((tmp_path / REPORT).read_bytes())
    assert written[0] == written[1]


def test_a_mistake_is_one_line_and_nothing_is_written(run_stage: Run, tmp_path: Path) -> None:
    ended = run_stage("check_params", **{"train.lr": -1})
    assert (ended.code, ended.stderr) == (2, "params.yaml: train.lr: found -1; allowed: greater than 0\n")
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.backbone", "resnet19", "model.backbone: found 'resnet19'"),
        ("model.weights", "models/typo.pt", "models/typo.pt: no such file"),
        ("train.devices", 3, "train.devices: "),
    ],
)
def test_what_would_stop_the_next_training_stops_it_before_the_last_one_s_model_is_gone(
    run_stage: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object, message: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: key == "train.devices")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    write_lock(tmp_path)
    ended = run_stage("check_params", **{key: value, "report.num_pictures": 3})
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert message in line
    write_lock(tmp_path, **{key: value})
    ended = run_stage("check_params", **{key: value, "report.num_pictures": 3})
    assert ended.code == 0, "it was trained so, and to draw a picture needs neither weights nor GPUs"


def test_too_few_models_to_fuse_stop_the_pipeline_before_the_training(run_stage: Run) -> None:
    ended = run_stage("check_params", **{"evaluate.ensemble": 3})
    message = "params.yaml: evaluate.ensemble: found 3, but train.keep_best keeps 1; set it to 3\n"
    assert (ended.code, ended.stderr) == (2, message)
    ended = run_stage("check_params", **{"evaluate.models": ["gone.pt"]})
    assert ended.code == 2
    assert ended.stderr.startswith("params.yaml: evaluate.models: gone.pt: no such file; ")


def test_it_imports_nothing_that_takes_seconds() -> None:
    code = "import stages.check_params, sys; print(*{'torch', 'mlflow', 'numpy', 'PIL'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "\n"


def test_make_repro_begins_with_it() -> None:
    """Of a value that is no YAML, DVC's own message names neither file nor key."""
    command = ["make", "--no-print-directory", "--dry-run", "repro"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-2:] == ["python -m stages.check_params", "dvc repro"]


@pytest.mark.parametrize("content", [b"", b'{"read": {"data/raw": [{"pid": 7'])
def test_a_cut_off_file_of_dvc_s_locks_is_deleted(run_stage: Run, tmp_path: Path, content: bytes) -> None:
    """As a DVC that is killed leaves it; none runs after that."""
    locks = tmp_path / ".dvc/tmp/rwlock"
    locks.parent.mkdir(parents=True)
    locks.write_bytes(content)
    with pytest.raises(RWLockFileCorruptedError) as refused, _edit_rwlock(str(locks.parent), localfs, False):
        pass
    assert CUT_OFF.search(str(refused.value))
    ended = run_stage("check_params")
    assert ended.code == 0
    assert "deleted .dvc/tmp/rwlock" in ended.stderr
    with _edit_rwlock(str(locks.parent), localfs, False) as edited:
        edited["read"]["data/raw"] = [{"pid": 7, "cmd": "dvc repro"}]
    whole = locks.read_bytes()
    assert run_stage("check_params") == Ended(0, "", "")
    assert locks.read_bytes() == whole
