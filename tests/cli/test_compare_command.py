"""`ssd compare`: figures, pictures, the gate, git revisions, and the champion of a registered model."""

import json
import logging
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detector import CLASS_NAMES, build_model
from voc_folder import annotation_xml, encode, object_xml, picture, write_image, write_lists
from waiting import Ended

from ssd.inference.detector_file import DetectorFile
from ssd.loading.tensor_file import TensorFile
from ssd.loss import LossSettings
from ssd.models.saved import save_model
from ssd.params import TrackingParams
from ssd.source.glyphs import GLYPHS
from ssd.structures import Detections
from ssd.tracking.client import mlflow, open_store
from ssd.tracking.model_files import MODEL_ARTIFACT

Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_model(seed=1, num_classes=len(GLYPHS))
    path = tmp_path_factory.mktemp("other") / "model.pt"
    save_model(path, model.state_dict(), model.config, GLYPHS, asdict(LossSettings()))
    return path


@pytest.fixture
def options(shapes_file: TensorFile) -> tuple[object, ...]:
    return ("--data", shapes_file.path, "--resamples", 20)


def test_two_models_are_compared_and_drawn(
    run_ssd: Run, glyph_model: Path, other_model: Path, options: tuple[object, ...], tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out", "--num-pictures", 2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/changed-07.png").write_text("of an earlier comparison")
    ended = run_ssd("compare", glyph_model, other_model, *options, *out)
    assert ended.code == 0, ended.stderr
    kept = json.loads((tmp_path / "out/comparison.json").read_text())
    assert [found["class"] for found in kept["per_class"]] == list(GLYPHS)
    assert kept["map"]["difference"] == kept["map"]["b"] - kept["map"]["a"]
    assert kept["sentence"] == ended.stdout.splitlines()[-1]
    assert kept["pictures"] == ["changed-01.png", "changed-02.png"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == kept["pictures"]


def test_a_model_is_not_better_than_itself_and_does_not_pass_the_gate(
    run_ssd: Run, glyph_model: Path, options: tuple[object, ...]
) -> None:
    ended = run_ssd("compare", glyph_model, glyph_model, *options, "--gate", "--json")
    assert ended.code == 1
    result = json.loads(ended.stdout)
    assert (result["verdict"], result["map"]["interval"], result["changed_images"]) == ("none", [0, 0], [])
    assert result["sentence"].startswith("no difference can be claimed: +0.0000 [+0.000, +0.000]")
    assert ended.stderr.endswith("--gate: B is not better\n")


def test_models_of_other_classes_are_refused(run_ssd: Run, glyph_model: Path, tmp_path: Path) -> None:
    model = build_model()
    save_model(tmp_path / "other.pt", model.state_dict(), model.config, CLASS_NAMES, asdict(LossSettings()))
    ended = run_ssd("compare", glyph_model, tmp_path / "other.pt")
    assert ended.code == 2
    assert ended.stderr.startswith("models of different classes do not compare: ")


def test_a_revision_without_a_model_is_named(run_ssd: Run, glyph_model: Path) -> None:
    for text in ("git:HEAD", "git:no-such-branch"):
        ended = run_ssd("compare", glyph_model, text)
        assert ended.code == 2
        assert ended.stderr.startswith(f"{text}: DVC has no models/model.pt of this revision here (")
        assert len(ended.stderr.splitlines()) == 1


def test_a_git_revision_is_the_model_that_dvc_kept_of_it(
    glyph_model: Path,
    other_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from dvc.repo import Repo

    from cli.model import model_file

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    # DVC's handlers write to the stdout of whichever test imported it.
    caplog.set_level(logging.ERROR, "dvc")
    git("init", "--initial-branch", "main")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    with Repo.init(tmp_path) as repo:
        for tag, model in (("first", glyph_model), ("second", other_model)):
            Path("models/model.pt").write_bytes(model.read_bytes())
            repo.add("models/model.pt")
            git("add", "--all")
            git("commit", "--message", tag)
            git("tag", tag)
    Path("models/model.pt").unlink()
    for text in ("git:first", "first", "HEAD~1"):
        with model_file(text) as path:
            assert path.read_bytes() == glyph_model.read_bytes()
    with model_file("git:second") as path:
        assert path.read_bytes() == other_model.read_bytes()


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """registry(model): log a model, register it as a version of `ssd`, and return its URI."""
    shutil.copytree(empty_store, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    settings = TrackingParams(enabled=True, experiment="ssd", run_name="", system_metrics=False, uri="")

    def register(model: Path) -> str:
        experiment, writer = open_store(settings, tmp_path)
        client = mlflow().MlflowClient()
        run = client.create_run(experiment)
        client.log_artifact(run.info.run_id, str(model), str(Path(MODEL_ARTIFACT).parent))
        client.set_terminated(run.info.run_id)
        if not client.search_registered_models("name = 'ssd'"):
            client.create_registered_model("ssd")
        version = client.create_model_version("ssd", run.info.artifact_uri, run.info.run_id)
        writer.gone()
        return f"models:/ssd/{version.version}"

    return register


def aliases() -> dict[str, Any]:
    return {
        name: str(version)
        for name, version in mlflow().MlflowClient().get_registered_model("ssd").aliases.items()
    }


def test_the_champion_is_who_is_better(
    run_ssd: Run,
    registry: Callable[[Path], str],
    glyph_model: Path,
    other_model: Path,
    options: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Version 1 sees nothing, and version 2 all there is."""

    def detect(detector: DetectorFile, file: TensorFile, device: str) -> list[Detections]:
        seen = slice(None) if detector.path.read_bytes() == other_model.read_bytes() else slice(0)
        truth = [file.objects(index) for index in range(len(file))]
        return [Detections(x.boxes[seen], torch.ones(len(x.labels[seen])), x.labels[seen]) for x in truth]

    monkeypatch.setattr("cli.detections.detect_split", detect)
    blind, seeing, champion = registry(glyph_model), registry(other_model), "models:/ssd@champion"
    assert (blind, seeing) == ("models:/ssd/1", "models:/ssd/2")

    ended = run_ssd("compare", other_model, blind, *options, "--promote")
    assert (ended.code, aliases()) == (0, {})
    assert ended.stderr.endswith("models:/ssd/1 does not become the champion\n")

    ended = run_ssd("compare", glyph_model, seeing, *options, "--promote", "--gate")
    assert (ended.code, aliases()) == (0, {"champion": "2"})
    assert ended.stderr.endswith("models:/ssd/2 is the champion now\n")
    tags = mlflow().MlflowClient().get_model_version("ssd", "2").tags
    assert set(tags) == {"champion_data_sha256", "champion_over", "champion_map_difference"}

    ended = run_ssd("compare", champion, blind, *options, "--promote")
    assert (ended.code, aliases()) == (0, {"champion": "2"})

    refused = run_ssd("compare", glyph_model, blind, *options, "--promote")
    assert (refused.code, aliases()) == (2, {"champion": "2"})
    assert "only who beats the champion takes its place: A is models:/ssd@champion" in refused.stderr
    assert "the champion already" in run_ssd("compare", champion, seeing, *options, "--promote").stderr

    mlflow().MlflowClient().set_registered_model_alias("ssd", "champion", "1")
    write_image(tmp_path / "own", "a", encode(picture()), annotation_xml(object_xml("star", (5, 5, 20, 20))))
    write_lists(tmp_path / "own", {"train": ["a"]})
    on_folder = ("--data", tmp_path / "own", "--resamples", 5)
    ended = run_ssd("compare", champion, seeing, *on_folder, "--promote", "--json")
    assert (ended.code, aliases()) == (0, {"champion": "2"}), ended.stderr
    result = json.loads(ended.stdout)
    assert [found["model"] for found in result["models"]] == [blind, seeing]
    tags = mlflow().MlflowClient().get_model_version("ssd", "2").tags
    assert tags["champion_data_sha256"] == result["data"]["sha256"]


def test_only_a_registered_version_becomes_champion(run_ssd: Run, glyph_model: Path) -> None:
    ended = run_ssd("compare", glyph_model, glyph_model, "--promote")
    assert ended.code == 2
    assert "only a registered version becomes champion: B is models:/NAME/VERSION" in ended.stderr
