"""What the header of each recipe of Faster R-CNN says of its source, in the source's numbers."""

import pytest
import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.faster_rcnn import _default_anchorgen
from torchvision.models.detection.image_list import ImageList

from recipes import FOLDER, recipe_params, recipe_priors
from ssd.boxes import cxcywh_to_xyxy
from ssd.params_space import Range
from ssd.training.schedule import learning_rate
from ssd.tuning.space import check_space

COCO, PENN_FUDAN = "coco-faster-rcnn-resnet50-fpn", "penn-fudan-faster-rcnn-resnet50"
BCCD, SMALL = "bccd-faster-rcnn-resnet50", "small-faster-rcnn"
LEARNING_RATES = {
    COCO: {1: 0.02, 15: 0.02, 16: 0.002, 21: 0.002, 22: 0.0002, 25: 0.0002},
    PENN_FUDAN: {1: 5e-3, 2: 5e-3, 3: 5e-4, 5: 5e-4, 6: 5e-5, 8: 5e-5, 9: 5e-6},
}


@pytest.mark.parametrize("name", [COCO, PENN_FUDAN, BCCD, SMALL])
def test_all_freeze_what_torchvision_freezes_and_choose_boxes_as_it(name: str) -> None:
    """The stem, layer1 and the batch norms, because they start from published weights."""
    params = recipe_params(name)
    model = params.model
    assert (model.family, model.backbone, model.width) == ("faster_rcnn", "resnet50", 256)
    assert model.weights == ("imagenet" if name == COCO else "coco")
    assert (params.train.freeze_stages, params.train.freeze_bn) == (2, True)
    assert params.evaluate.nms_iou == params.export.nms_iou == 0.5


@pytest.mark.parametrize("name", LEARNING_RATES)
def test_torchvisions_systems_have_its_anchors_schedule_and_thresholds(name: str) -> None:
    params = recipe_params(name)
    train, evaluate, side, num_batches = params.train, params.evaluate, params.model.input_size, 1000
    steps = {epoch: epoch * num_batches + num_batches // 2 for epoch in LEARNING_RATES[name]}
    found = {epoch: learning_rate(step, train.epochs * num_batches, train) for epoch, step in steps.items()}
    assert found == pytest.approx(LEARNING_RATES[name], rel=0.02)
    assert (train.optimizer, train.momentum, train.clip_norm) == ("sgd", 0.9, 0.0)
    assert (evaluate.score_threshold, evaluate.max_detections) == (0.05, 100)
    assert (params.augment.policy, params.augment.flip, params.augment.photometric) == ("light", 0.5, 0.0)
    images = ImageList(torch.zeros(1, 3, side, side), [(side, side)])
    maps = [torch.zeros(1, 1, cells, cells) for cells in (200, 100, 50, 25, 13)]
    (expected,) = _default_anchorgen()(images, maps)
    torch.testing.assert_close(cxcywh_to_xyxy(recipe_priors(name)) * side, expected, atol=1e-3, rtol=0)


def test_what_else_their_headers_say() -> None:
    coco, penn_fudan = recipe_params(COCO), recipe_params(PENN_FUDAN)
    assert (coco.train.epochs, coco.train.batch_size, coco.train.weight_decay) == (26, 16, 1e-4)
    assert coco.train.skip_empty
    published = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["_metrics"]["COCO-val2017"]["box_map"]
    assert f"Published: {published} mAP" in (FOLDER / f"{COCO}.yaml").read_text()
    assert (penn_fudan.train.epochs, penn_fudan.train.batch_size) == (10, 2)
    assert penn_fudan.train.weight_decay == 5e-4
    assert round(170 * penn_fudan.preprocess.test_fraction) == 50


def test_the_one_for_small_data_has_its_techniques_and_can_be_searched() -> None:
    params = recipe_params(SMALL)
    train, space = params.train, params.tune.space
    assert train.skip_empty and train.repeat_threshold > 0 and train.precision == "auto"
    assert (train.small_epochs, train.small_scale, train.early_stop) == (10, 0.5, 10)
    assert (train.select_by, train.keep_best, params.evaluate.ensemble) == ("map50_f1", 3, 3)
    assert (params.model.priors, params.model.prior_clusters) == ("kmeans", 9)
    assert params.tune.objective == "fused_map50_f1"
    assert space["train.lr"].log and space["train.batch_size"] == (4, 8)  # type: ignore[union-attr]
    assert space["train.f1_score"] == Range(0.1, 0.9)
    assert train.f1_score == 0.5
    check_space(params)
