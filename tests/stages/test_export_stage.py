"""The stage export: two files and a report, or nothing."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from ssd.errors import UserError
from ssd.export.verify_onnx import verify_onnx
from ssd.files import sha256, write_json
from ssd.loading.tensor_file import TensorFile
from ssd.loss import LossSettings
from ssd.models.config import paper_config
from ssd.models.saved import save_model
from ssd.models.ssd import SSD
from ssd.params import Params
from stages import export
from stages.export import main, metrics_of, params_digest
from stages.revision import lock_digest


@pytest.fixture
def workspace(
    tmp_path: Path,
    shapes_file: TensorFile,
    monkeypatch: pytest.MonkeyPatch,
    make_params: Callable[..., Params],
) -> Path:
    """A folder in which a small model has been trained, or so it seems."""
    monkeypatch.chdir(tmp_path)
    make_params(**{"export.num_images": 2, "tracking.enabled": False})
    Path("data/tensors/test").mkdir(parents=True)
    shutil.copy(shapes_file.path, "data/tensors/test/00000-of-00001.safetensors")
    torch.manual_seed(0)
    names = shapes_file.class_names
    model = SSD(paper_config("resnet18", 64, len(names) + 1, 0.1, 0.2, 1.05))
    for head in model.heads.conf:
        torch.nn.init.normal_(head.bias)
    save_model("models/model.pt", model.state_dict(), model.config, names, asdict(LossSettings()))
    return tmp_path


def test_it_writes_both_files_and_a_report(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert sorted(path.name for path in Path("models/export").iterdir()) == ["ssd.onnx", "ssd.torchscript.pt"]
    report = json.loads(Path("reports/export.json").read_text())
    assert report["num_detections"] > 0
    assert {"ssd.onnx", "ssd.torchscript.pt", "pytorch"} < report.keys()
    said = capsys.readouterr()
    assert "ssd.onnx" in said.out
    assert "no reports/metrics.json of this models/model.pt" in said.err
    report = verify_onnx(Path("models/export/ssd.onnx"))
    assert report.problem == ""
    certificate = report.metadata["certificate"]
    assert certificate["model_sha256"] == sha256("models/model.pt")
    assert certificate["data_sha256"] == {"test": sha256("data/tensors/test/00000-of-00001.safetensors")}
    assert certificate["metrics"] is None


def test_the_certificate_has_the_figures_of_this_model_alone(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = sha256("models/model.pt")
    measured = {"coco": {"map": 0.5}, "sha256": [f"{digest}  models/model.pt"]}
    write_json("reports/metrics.json", measured)
    assert metrics_of(digest) == measured
    assert metrics_of("0" * 64) is None
    assert "run evaluate first" in capsys.readouterr().err


def test_the_digest_of_the_params_is_of_what_decides_the_files(make_params: Callable[..., Params]) -> None:
    before = params_digest(make_params())
    assert params_digest(make_params(**{"report.num_pictures": 3, "tracking.enabled": False})) == before
    for change in ({"train.lr": 0.1}, {"evaluate.nms_iou": 0.6}, {"export.max_detections": 7}):
        assert params_digest(make_params(**change)) != before


def test_the_lock_s_digest_is_of_the_stages_that_led_to_the_model(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    assert lock_digest(lock) is None
    entries = {name: {"cmd": "python", "outs": [{"path": name, "md5": "a"}]} for name in ("train", "export")}

    def digest(*order: str, **changes: object) -> str | None:
        content = {"schema": "2.0", "stages": {name: entries[name] | changes for name in order}}
        lock.write_text(yaml.safe_dump(content, sort_keys=False))
        return lock_digest(lock)

    before = digest("train", "export")
    assert before == digest("export", "train") == digest("train")
    assert before != digest("train", cmd="other")
    for text in ("stages: [", "- 1", "schema: '2.0'", "stages:"):
        lock.write_text(text)
        with pytest.raises(UserError, match="not what DVC writes"):
            lock_digest(lock)


def test_a_disagreement_leaves_what_was_there_and_says_why(
    workspace: Path,
    make_params: Callable[..., Params],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def disagree(
        detector: object, names: object, files: Sequence[Path], images: object, tolerance: float
    ) -> None:
        assert [path.is_file() for path in files] == [True, True]
        raise UserError(f"{files[0].name} disagrees by more than {tolerance}")

    monkeypatch.setattr(export, "to_onnx", lambda *arguments: b"an export takes seconds")
    monkeypatch.setattr(export, "certify", lambda *arguments: None)
    monkeypatch.setattr(export, "compare_files", disagree)
    make_params(**{"export.num_images": 2, "export.tolerance": 1e-12, "tracking.enabled": False})
    earlier = [Path(name) for name in ("models/export/ssd.onnx", "reports/export.json")]
    for path in earlier:
        path.parent.mkdir(exist_ok=True)
        path.write_text("of an earlier model")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    _, message = capsys.readouterr().err.splitlines()  # after the warning that there are no figures
    assert message.startswith("ssd.onnx disagrees by more than 1e-12")
    assert sorted(path.name for path in Path("models").iterdir()) == ["export", "model.pt"]
    assert [path.read_text() for path in earlier] == ["of an earlier model"] * 2
    assert {*Path("models/export").iterdir(), *Path("reports").iterdir()} == set(earlier)
