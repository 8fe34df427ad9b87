"""The stage evaluate: each figure says what it is, and none is published that two evaluators disagree on."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from waiting import Ended

from ssd.detections_file import read_detections
from ssd.errors import UserError
from ssd.loading.tensor_file import TensorFile
from ssd.loss import LossSettings
from ssd.metrics import scoring
from ssd.metrics.coco import coco_result, evaluate_coco
from ssd.models.config import paper_config
from ssd.models.saved import save_model
from ssd.models.ssd import SSD
from ssd.source.glyphs import GLYPHS
from ssd.tensor_writer import AnnotatedImage, write_tensor_file
from stages.evaluate import in_words, print_classes
from stages.report import judged_test_split, read_json, worst

PLAIN = {"evaluate.resamples": 50, "evaluate.max_detections": 30}
PROBLEMS = [("train", "dropped"), ("test", "mended"), ("test", "mended"), ("test", "dropped")]

Run = Callable[..., Ended]


@pytest.fixture
def workspace(tmp_path: Path, shapes_file: TensorFile) -> Path:
    """A folder in which a small network has been trained with focal loss, or so it seems."""
    (tmp_path / "data/tensors/test").mkdir(parents=True)
    shutil.copy(shapes_file.path, tmp_path / "data/tensors/test/00000-of-00001.safetensors")
    problems = [{"split": split, "action": action} for split, action in PROBLEMS]
    (tmp_path / "reports/preprocess").mkdir(parents=True)
    (tmp_path / "reports/preprocess/problems.json").write_text(json.dumps({"problems": problems}))
    save(tmp_path, LossSettings(conf_loss="focal"))
    return tmp_path


@cache
def network() -> SSD:
    """Random weights that find dozens of things in every image."""
    torch.manual_seed(0)
    model = SSD(paper_config("shufflenet_v2_x0_5", 64, len(GLYPHS) + 1, 0.1, 0.2, 1.05))
    for head in model.heads.conf:
        torch.nn.init.normal_(head.bias)
    return model


def save(folder: Path, settings: LossSettings) -> None:
    save_model(folder / "models/model.pt", network().state_dict(), network().config, GLYPHS, asdict(settings))


def save_other(path: Path, class_names: Sequence[str]) -> None:
    """A model of another input size, whose random weights were drawn with another seed."""
    torch.manual_seed(1)
    model = SSD(paper_config("shufflenet_v2_x0_5", 96, len(class_names) + 1, 0.1, 0.2, 1.05))
    for head in model.heads.conf:
        torch.nn.init.normal_(head.bias)
    save_model(path, model.state_dict(), model.config, class_names, asdict(LossSettings()))


def write_val(folder: Path, image_ids: Sequence[str]) -> None:
    """A val split of empty images."""
    path = folder / "data/tensors/val/00000-of-00001.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_tensor_file(path, [AnnotatedImage(name, b"", (1, 1), [], [], [], []) for name in image_ids], GLYPHS)


def ensemble(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "reports/evaluate/ensemble.json").read_text())
    return found


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "reports/metrics.json").read_text())
    return found


def test_every_figure_of_metrics_json_is_defined_and_the_fast_evaluator_s(
    workspace: Path, run_stage: Run, shapes_file: TensorFile
) -> None:
    ended = run_stage("evaluate", **PLAIN)
    assert ended.code == 0, ended.stderr
    found = metrics(workspace)
    assert found["num_detections"] > 100
    ids = shapes_file.image_ids
    detections = read_detections(workspace / "reports/evaluate/detections.json", ids)
    objects = [shapes_file.objects(index) for index in range(len(ids))]
    own = evaluate_coco(detections, objects, GLYPHS)
    assert [found["coco"][key] for key in ("map", "map50", "map75")] == pytest.approx(
        [own.map, own.map50, own.map75], abs=1e-6
    )
    assert [item["coco_ap50"] for item in found["per_class"]] == pytest.approx(
        list(own.per_class_map50.values()), abs=1e-6
    )
    text = "\n".join(found["definitions"])
    defined = set(re.findall(r"[\w*]+", text))
    for key in (*found["coco"], *found["voc"], *found["per_class"][0].keys() - {"class", "num_objects"}):
        # "*_interval", "*_small" and so on stand for several.
        assert key in defined or f"*_{key.rpartition('_')[2]}" in defined, key
    for word in ("torchmetrics", "101 recall points", "lenient", "np.arange(0, 1.1, 0.1)", "50 bootstrap"):
        assert word in text
    assert all(len(line) < 300 for line in found["definitions"])


def test_intervals_are_beside_their_figures_in_the_file_and_on_the_terminal(
    workspace: Path, run_stage: Run
) -> None:
    said = run_stage("evaluate", **PLAIN).stdout
    coco = metrics(workspace)["coco"]
    assert list(coco)[:4] == ["map", "map_interval", "map50", "map50_interval"]
    low, high = coco["map50_interval"]
    assert low <= coco["map50"] <= high
    assert f"{coco['map50']:.4f} [{low:.3f}, {high:.3f}]\n" in said
    assert all("coco_ap50_interval" in item for item in metrics(workspace)["per_class"])
    run_stage("evaluate", **{**PLAIN, "evaluate.resamples": 0, "train.f1_score": 0.3})
    assert "interval" not in (text := (workspace / "reports/metrics.json").read_text())
    assert "F1 of its detections from score 0.3 on (train.f1_score)" in text


def test_the_loss_is_that_of_the_model_s_own_criterion(workspace: Path, run_stage: Run) -> None:
    losses = []
    for settings in (LossSettings(conf_loss="focal"), LossSettings(box_weight=3.0)):
        save(workspace, settings)
        run_stage("evaluate", **{**PLAIN, "evaluate.resamples": 0})
        losses.append(metrics(workspace)["training_criterion"])
    focal, weighted = losses
    assert focal["loss"] == pytest.approx(focal["loc_loss"] + focal["conf_loss"])
    assert focal["conf_loss"] != pytest.approx(weighted["conf_loss"], rel=0.1)
    assert weighted["loc_loss"] == pytest.approx(3 * focal["loc_loss"])


def test_what_was_mended_in_the_test_split_is_said(workspace: Path, run_stage: Run) -> None:
    ended = run_stage("evaluate", **PLAIN)
    assert (metrics(workspace)["num_mended"], metrics(workspace)["num_dropped"]) == (2, 1)
    assert "preprocess mended 2 and dropped 1 annotations (or images) of the test split" in ended.stdout
    (workspace / "reports/preprocess/problems.json").unlink()
    ended = run_stage("evaluate", **PLAIN)
    assert ended.code == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("reports/preprocess/problems.json: missing") and "preprocess" in line


def test_the_errors_that_the_report_marks_are_those_of_the_confusion_matrix(
    workspace: Path, run_stage: Run, shapes_file: TensorFile
) -> None:
    run_stage("evaluate", **{**PLAIN, "evaluate.resamples": 0})
    found = judged_test_split(shapes_file, metrics(workspace)["operating_point"]["score"])
    rows = (workspace / "reports/evaluate/confusion_matrix.tsv").read_text().splitlines()[1:]
    matrix = np.array([row.split("\t")[1:] for row in rows], dtype=int)
    errors = found.num_errors(len(shapes_file))
    assert errors.sum() == matrix.sum() - matrix.trace() > 0
    chosen = worst(found, len(shapes_file), 3)
    assert errors[chosen].tolist() == sorted(errors.tolist(), reverse=True)[: len(chosen)]


def test_the_best_models_are_fused_and_the_gain_is_measured(
    workspace: Path, run_stage: Run, shapes_file: TensorFile
) -> None:
    """Copies of one model gain nothing: fusing what agrees changes no score or box."""
    (workspace / "models/best").mkdir()
    for rank in (2, 3):
        shutil.copy(workspace / "models/model.pt", workspace / f"models/best/{rank}.pt")
    changes = {**PLAIN, "evaluate.ensemble": 3, "evaluate.nms_iou": 0.3}
    ended = run_stage("evaluate", **changes)
    assert ended.code == 0, ended.stderr
    gain = metrics(workspace)["ensemble"]
    assert gain["num_models"] == 3
    measured = [line.split("  ")[1] for line in metrics(workspace)["sha256"]]
    assert measured[:3] == ["models/model.pt", "models/best/2.pt", "models/best/3.pt"]
    assert gain["map50"] == pytest.approx(metrics(workspace)["coco"]["map50"], abs=0.02)
    assert "3 models fused: map50 0." in ended.stdout
    written = ensemble(workspace)
    seconds = written.pop("seconds_per_image")
    assert written.pop("fused") == "the 3 best checkpoints of the run"
    assert [item["model"] for item in written.pop("models")] == measured[:3]
    assert written == gain
    assert 0 < seconds["first"] < seconds["all"] and 0 < seconds["fusion"] < seconds["all"]

    (workspace / "models/best/3.pt").unlink()
    ended = run_stage("evaluate", **changes)
    (line,) = ended.stderr.splitlines()
    assert line.startswith(
        "params.yaml: evaluate.ensemble: found 3, but training kept 2 (models/best/3.pt is"
    )
    assert "if val has no objects, only the last weights are kept" in line


def test_further_models_are_fused_with_the_best_and_each_is_measured_alone(
    workspace: Path, run_stage: Run
) -> None:
    """Another network at another size: its own figures are what evaluate finds for it alone."""
    write_val(workspace, ["another"])
    (workspace / "models/best").mkdir()
    shutil.copy(workspace / "models/model.pt", workspace / "models/best/2.pt")
    further = "models/folds/0-ab.pt"
    save_other(workspace / further, GLYPHS)
    ended = run_stage("evaluate", **{**PLAIN, "evaluate.ensemble": 2, "evaluate.models": [further]})
    assert ended.code == 0, ended.stderr
    fused = ensemble(workspace)
    what = "the 2 best checkpoints of the run and 1 further model (evaluate.models)"
    assert fused["fused"] == what and f"fused: {what}\n" in ended.stdout
    names = ["models/model.pt", "models/best/2.pt", further]
    assert [item["model"] for item in fused["models"]] == names
    assert [line.split("  ")[1] for line in metrics(workspace)["sha256"]][:3] == names
    first, _, other = fused["models"]
    assert first["map50"] == pytest.approx(metrics(workspace)["coco"]["map50"], abs=1e-6)
    for key in ("map", "map50"):
        assert fused[f"{key}_mean"] == pytest.approx((2 * first[key] + other[key]) / 3)
        assert fused[f"{key}_gain"] == pytest.approx(fused[key] - first[key])
    (workspace / further).replace(workspace / "models/model.pt")
    run_stage("evaluate", **PLAIN)
    assert metrics(workspace)["coco"]["map50"] == pytest.approx(other["map50"], abs=1e-6) != first["map50"]
    assert not (workspace / "reports/evaluate/ensemble.json").exists()


def test_models_that_do_not_belong_together_are_refused_in_one_line(
    workspace: Path, run_stage: Run, shapes_file: TensorFile
) -> None:
    write_val(workspace, ["another"])
    save_other(workspace / "cats.pt", ["cat", "dog"])
    shutil.copy(workspace / "models/model.pt", workspace / "copy.pt")

    def refused(*names: str, **changes: object) -> str:
        ended = run_stage("evaluate", **{**PLAIN, "evaluate.models": list(names), **changes})
        assert ended.code == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith("params.yaml: evaluate.models: ")
        return line.removeprefix("params.yaml: evaluate.models: ")

    assert refused("cats.pt").startswith("cats.pt: its classes are cat, dog; those of the test split are ")
    assert refused("copy.pt") == "copy.pt: the same model as models/model.pt; name each one once"
    save_other(workspace / "copy.pt", GLYPHS)
    shutil.copy(workspace / "copy.pt", workspace / "same.pt")
    assert refused("copy.pt", "same.pt") == "same.pt: the same model as copy.pt; name each one once"
    assert refused("gone.pt").startswith("gone.pt: no such file; `python -m stages.folds` fetches")
    assert refused("copy.pt", **{"data.folds": 2}).startswith("found 1 with data.folds 2")
    write_val(workspace, shapes_file.image_ids)
    assert refused("copy.pt").startswith("found 1, but the test split is the val split")
    assert not (workspace / "reports/metrics.json").exists()


@pytest.mark.parametrize("num_classes", [25, 27])
def test_the_terminal_has_a_table_of_the_first_classes(
    num_classes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"num_objects": 3, "coco_ap": 0.25, "coco_ap50": 0.5}
    rates = {"operating_precision": None, "operating_recall": 0.0, "operating_f1": 0.125}
    print_classes([{"class": f"class {number}", **figures, **rates} for number in range(num_classes)])
    header, first, *others = capsys.readouterr().out.splitlines()
    assert header.split() == ["class", "objects", "AP", "AP50", "precision", "recall", "F1"]
    assert first.split() == ["class", "0", "3", "0.2500", "0.5000", "-", "0.0000", "0.1250"]
    assert len(header) == len(first)
    assert others[24:] == ([] if num_classes == 25 else ["... and 2 more in reports/metrics.json"])


def test_a_difference_that_rounds_to_zero_has_no_sign() -> None:
    assert in_words(-0.00004, (-0.0004, 0.0)) == "0.0000 [0.000, 0.000]"
    assert in_words(-0.00006, (-0.0006, -0.0)) == "-0.0001 [-0.001, 0.000]"


def test_evaluators_that_disagree_stop_the_stage(
    workspace: Path, run_stage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "coco_result", lambda *inputs: replace(coco_result(*inputs), map75=0.987))
    ended = run_stage("evaluate", **PLAIN)
    assert ended.code == 2
    assert "COCO's map75 is 0." in ended.stderr and "0.987 by ssd/metrics/coco.py" in ended.stderr
    assert not (workspace / "reports/metrics.json").exists()
    assert (workspace / "reports/evaluate/detections.json").exists(), "what to look at"


@pytest.mark.parametrize("content", [None, b"", b'{"a": ', b"[1]", b'{"a": "\xff"}'])
def test_what_the_report_cannot_read_is_one_line_that_names_the_file(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="metrics.json: missing or damaged$") as raised:
        read_json(path)
    assert raised.value.path == path
