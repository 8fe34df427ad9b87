"""Initial weights of a Faster R-CNN: torchvision's detector, a backbone, a model.pt; what does not fit."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from ssd.errors import UserError
from ssd.models.config import paper_config
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.saved import load_model, save_model
from ssd.models.ssd import SSD
from ssd.models.weights import load_weights

CONFIG = FasterRCNNConfig("resnet18", 64, 4, width=8, roi_width=16)
KNOWN = ["cat", "dog", "bird"]


def build(seed: int, **changes: int) -> FasterRCNN:
    torch.manual_seed(seed)
    return FasterRCNN(replace(CONFIG, **changes))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    trained = build(0)
    save_model(tmp_path / "base.pt", trained.state_dict(), trained.config, KNOWN, {})
    return tmp_path / "base.pt"


def test_a_saved_model_is_rebuilt(file: Path) -> None:
    model, names = load_model(file)
    assert (model.config, names) == (CONFIG, KNOWN)
    trained = build(0).state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in model.state_dict().items())


def test_classes_keep_what_predicts_them_by_name(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, given = build(1, num_classes=3, input_size=96), build(0)
    load_weights(model, str(file), ["bird", "fish"])
    for layer, number in (("cls_score", 1), ("bbox_pred", 4)):
        own = model.predictor.get_submodule(layer).weight.view(3, number, -1)
        theirs = given.predictor.get_submodule(layer).weight.view(4, number, -1)
        assert torch.equal(own[:2], theirs[[0, 3]])
        assert not torch.equal(own[2], theirs[2])
    assert torch.equal(model.box_head.fc6.weight, given.box_head.fc6.weight)
    assert "other priors" not in caplog.text, "the anchors are the same in pixels"


def test_a_model_of_another_family_is_refused(file: Path, tmp_path: Path) -> None:
    other = SSD(paper_config("resnet18", 64, 4))
    with pytest.raises(UserError, match=r"base\.pt is of another family; set model\.family: faster_rcnn"):
        load_weights(other, str(file), KNOWN)
    save_model(tmp_path / "ssd.pt", other.state_dict(), other.config, KNOWN, {})
    with pytest.raises(UserError, match=r"ssd\.pt is of another family; set model\.family: ssd"):
        load_weights(build(0), str(tmp_path / "ssd.pt"), KNOWN)


def test_its_backbone_takes_the_weights_of_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(2)
    state = resnet18().state_dict()
    torch.save(state, tmp_path / "classifier.pth")
    model = build(0)
    load_weights(model, str(tmp_path / "classifier.pth"))
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])


def test_torchvision_s_detector_is_taken_whole_but_for_other_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with torch.device("meta"):
        names = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=5).state_dict()
    # Frozen batch norms do not count batches.
    state = {
        key: torch.full((), 0.5).expand(value.shape) for key, value in names.items() if "num_b" not in key
    }
    path = tmp_path / "detector.pth"
    torch.save(state, path)
    model = FasterRCNN(FasterRCNNConfig("resnet50", 64, 5))
    with caplog.at_level(logging.WARNING, "ssd"):
        load_weights(model, str(path))
        assert caplog.messages == []
        assert all((value == 0.5).all() for key, value in model.state_dict().items() if "num_b" not in key)
        fewer = FasterRCNN(FasterRCNNConfig("resnet50", 64, 3))
        load_weights(fewer, str(path))
    assert "has 5 classes, the data set has 3 (with background): the class heads are randomly" in caplog.text
    assert (fewer.box_head.fc6.weight == 0.5).all()
    assert not (fewer.predictor.cls_score.weight == 0.5).any()
    for model, message in (
        (build(0), r"does not fit torchvision's fasterrcnn_resnet50_fpn, which is family: faster_rcnn"),
        (SSD(paper_config("resnet18", 64, 4)), r"it fits family: faster_rcnn, backbone: resnet50"),
    ):
        with pytest.raises(UserError, match=message):
            load_weights(model, str(path))
