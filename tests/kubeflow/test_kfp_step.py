"""A step in its container: what it checks of the run's parameters, and the artifacts it leaves."""

import json
from pathlib import Path

import pytest
from default_params import default_text, read_yaml

import step
from ssd.errors import UserError


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(f"# all of them\n{default_text()}")
    return path


def test_settings_are_written_into_the_params_whose_comments_stay(params: Path) -> None:
    before = read_yaml(params)
    step.apply_settings(params, ["train.lr=1e-4", "data.classes=[a, b]", "tracking.run_name="])
    after = read_yaml(params)
    assert (after["train"].pop("lr"), after["data"].pop("classes")) == (1e-4, ["a", "b"])
    assert after["tracking"].pop("run_name") is None
    for section, key in (("train", "lr"), ("data", "classes"), ("tracking", "run_name")):
        del before[section][key]
    assert after == before
    assert params.read_text().startswith("# all of them\n")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.lr", "settings: found 'train.lr'; allowed: section.key=value"),
        ("train.rl=1", "settings: train.rl: params.yaml has no such key"),
        ("lr=1", "settings: lr: params.yaml has no such key"),
        ("training.lr=1", "settings: training.lr: params.yaml has no such key"),
        ("data.classes=[a", r"settings: data.classes: '\[a' is not YAML"),
        (5, "settings: found 5; allowed: section.key=value"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(params: Path, setting: str, message: str) -> None:
    before = params.read_bytes()
    with pytest.raises(UserError, match=message) as refused:
        step.apply_settings(params, [setting])
    assert "\n" not in str(refused.value)
    assert params.read_bytes() == before


def test_a_run_with_a_remote_needs_its_url(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="remote: empty; give the run the URL"):
        step.add_remote(tmp_path, "")


def test_a_folder_beside_a_remote_keeps_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, project = tmp_path / "volume", tmp_path / "project"
    volume.mkdir()
    monkeypatch.setattr(step.tempfile, "mkdtemp", lambda **_: str(project))
    monkeypatch.setattr(step.subprocess, "run", lambda *_, **__: None)
    values = {"settings": [], "mlflow_uri": "", "remote": str(tmp_path / "remote")}
    outputs = {"outputFile": str(tmp_path / "told.json")}
    given = {"inputs": {"parameterValues": values}, "outputs": outputs}
    step.run_step("check_params", f"remote:{volume}", given)
    assert (project / "checkpoints").resolve() == volume


def test_a_volume_where_this_user_may_not_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(step.tempfile, "TemporaryDirectory", refuse)  # root may write everywhere
    with pytest.raises(UserError, match=f"{tmp_path}: user .* may not write there; .* pipeline-remote.yaml"):
        step.open_workspace(tmp_path)


def test_the_first_step_puts_the_code_on_the_volume_and_the_others_find_it(tmp_path: Path) -> None:
    project = step.open_workspace(tmp_path)
    assert (project / "dvc.yaml").is_file()
    assert "no_scm = True" in (project / ".dvc/config.local").read_text()
    for name in (".git", ".venv", "data", "models", "reports", "dvc.lock", ".dvc/cache"):
        assert not (project / name).exists(), name
    (project / "reports").mkdir()
    assert step.open_workspace(tmp_path) == project
    assert (project / "reports").is_dir()
    assert list(tmp_path.iterdir()) == [project]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://mlpipeline/v2/model", "/minio/mlpipeline/v2/model"),
        ("s3://bucket/key", "/s3/bucket/key"),
        ("gs://bucket/key", "/gcs/bucket/key"),
        ("/tmp/run/model", "/tmp/run/model"),
    ],
)
def test_artifacts_are_written_where_kubeflow_uploads_them_from(uri: str, path: str) -> None:
    assert step.local_path(uri) == Path(path)


def test_a_failing_stage_fails_the_step_with_dvc_s_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise step.subprocess.CalledProcessError(255, ["dvc"])

    monkeypatch.setattr(step, "run_step", fail)
    with pytest.raises(SystemExit) as ended:
        step.main(["train", "remote", json.dumps({})])
    assert ended.value.code == 255
