"""A Faster R-CNN goes through the stages as an SSD does: trained, measured, its anchors drawn."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from default_params import default_params
from waiting import Ended

from ssd.loading.tensor_file import TensorFile
from ssd.models.saved import load_loss_settings, load_model
from stages.report import priors_figure, title_of

SMALL = {
    "model.family": "faster_rcnn",
    "model.priors": "kmeans",
    "model.backbone": "shufflenet_v2_x0_5",
    "model.input_size": 64,
    "model.width": 16,
    "train.epochs": 1,
    "train.batch_size": 8,
    "train.precision": "fp32",
    "train.device": "cpu",
    "evaluate.resamples": 0,
}


def test_it_is_trained_measured_and_reported(
    run_stage: Callable[..., Ended], shapes_file: TensorFile, tmp_path: Path
) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / "data/tensors" / split).mkdir(parents=True)
        shutil.copy(shapes_file.path, tmp_path / "data/tensors" / split / "00000-of-00001.safetensors")
    (tmp_path / "reports/preprocess").mkdir(parents=True)
    (tmp_path / "reports/preprocess/problems.json").write_text('{"problems": []}')
    for stage in ("train", "evaluate"):
        ended = run_stage(stage, **SMALL)
        assert ended.code == 0, ended.stderr
    model, names = load_model("models/model.pt")
    assert (model.config.family, names) == ("faster_rcnn", shapes_file.class_names)
    assert load_loss_settings("models/model.pt")["box_weight"] == 1.0
    loss = json.loads(Path("reports/metrics.json").read_text())["training_criterion"]
    assert loss["loss"] == pytest.approx(loss["loc_loss"] + loss["conf_loss"])
    assert 0 < loss["loc_loss"] < loss["loss"]
    described = json.loads(Path("reports/train/priors.json").read_text())
    assert described["kind"] == "kmeans"
    drawn = priors_figure(described, shapes_file).axes
    assert len(drawn) == 2
    assert len(drawn[-1].collections) == 1 + len(described["levels"])


def test_the_title_of_the_report_names_the_family_unless_it_is_ssd() -> None:
    assert title_of(default_params(**{"model.backbone": "vgg16"})) == "shapes, vgg16 at 128 pixels"
    title = title_of(default_params(**SMALL))
    assert title == "shapes, faster_rcnn on shufflenet_v2_x0_5 at 64 pixels"
