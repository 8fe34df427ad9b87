"""Anchors of a Faster R-CNN by k-means: where they are, how they fit, and which outputs are theirs."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from ssd.errors import UserError
from ssd.models.build import build_model
from ssd.models.family import paper_priors
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.kmeans_anchors import kmeans_anchors
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.faster_rcnn.torchvision_weights import RPN_OUTPUTS
from ssd.models.kmeans_priors import kmeans_shapes, prior_fit
from ssd.models.priors import PriorLevel
from ssd.models.saved import load_model, save_model
from ssd.models.weights import load_weights
from ssd.params import Params

SIDE = 256
LEVELS = (
    PriorLevel(((0.1, 0.2),)),
    PriorLevel(((0.2, 0.2), (0.1, 0.5))),
    PriorLevel(((0.4, 0.4),)),
    PriorLevel(((0.5, 0.9), (0.8, 0.3), (0.9, 0.9))),
    PriorLevel(((0.9, 0.9),)),
)
CONFIG = FasterRCNNConfig("resnet18", 64, 4, width=8, roi_width=16, anchor_levels=LEVELS)


def test_each_shape_is_on_the_level_whose_cells_are_an_eighth_of_it() -> None:
    sides = torch.tensor([30.0, 70.0, 120.0, 130.0]) / SIDE  # level strides 4, 8, 16, 16
    levels = kmeans_anchors(torch.stack([sides / 2, sides * 2], dim=1), SIDE, 4, seed=0)
    found = [[round((w * h) ** 0.5 * SIDE) for w, h in level.shapes] for level in levels]
    assert found == [[30], [70], [120, 130], [130], [130]], "no level without one: the nearest shape again"


def test_all_nine_shapes_are_used_and_fit_tall_boxes_better_than_the_table() -> None:
    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([0.08, 0.3]) * (0.5 * torch.randn(300, 2, generator=generator)).exp()
    size = size.clamp(max=0.9)
    corner = torch.rand(300, 2, generator=generator) * (1 - size)
    boxes = torch.cat([corner, corner + size], dim=1)
    levels = kmeans_anchors(size, SIDE, 9, seed=0)
    shapes = kmeans_shapes(size, 9, seed=0).tolist()
    assert {shape for level in levels for shape in level.shapes} == set(map(tuple, shapes))
    config = FasterRCNNConfig("resnet18", SIDE, 2, anchor_levels=levels)
    found = prior_fit(config.anchors_at(SIDE), boxes)
    table = prior_fit(paper_priors(config)[0], boxes)
    assert table.num_priors == 3 * sum(height * width for height, width in config.map_sizes())
    assert found.mean_best_iou is not None and table.mean_best_iou is not None
    assert found.recall50 is not None and table.recall50 is not None
    assert found.mean_best_iou > table.mean_best_iou + 0.1
    assert found.recall50 > table.recall50 + 0.1


def test_boxes_without_an_area_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"model\.priors: kmeans, but no training box"):
        kmeans_anchors(torch.zeros(2, 2), SIDE, 9, seed=0)


def test_each_anchor_has_an_output_of_its_own() -> None:
    torch.manual_seed(0)
    model = FasterRCNN(CONFIG)
    shapes = [shape for level in LEVELS for shape in level.shapes]
    with torch.no_grad():
        for number in range(len(shapes)):
            model.rpn.cls_logits.bias[number] = number
            model.rpn.bbox_pred.bias[4 * number : 4 * number + 4] = number
        maps = [torch.zeros(1, 8, height, width) for height, width in CONFIG.map_sizes()]
        objectness, offsets = model.anchor_outputs(maps)
    assert len(model.priors) == objectness.shape[1] == sum(CONFIG.anchors_per_level(64))
    for anchor, score, offset in zip(model.priors, objectness[0], offsets[0], strict=True):
        number = round(score.item())
        assert offset.tolist() == pytest.approx([number] * 4, abs=1e-3)
        assert anchor[2:].tolist() == pytest.approx(shapes[number], abs=1e-5)


def test_they_are_as_large_within_the_image_at_every_input_size() -> None:
    sizes = [CONFIG.anchors_at(side)[:, 2:].double() for side in (64, 128)]
    found = [torch.unique(size.round(decimals=4), dim=0) for size in sizes]
    assert len(found[0]) == 7, "one of the eight is on two levels"
    torch.testing.assert_close(*found)


def test_a_saved_model_has_them_and_another_one_may_start_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = FasterRCNN(CONFIG)
    save_model(tmp_path / "model.pt", model.state_dict(), CONFIG, ["a", "b", "c"], {})
    loaded, _ = load_model(tmp_path / "model.pt")
    assert loaded.config == CONFIG and torch.equal(loaded.priors, model.priors)
    table = FasterRCNN(replace(CONFIG, anchor_levels=()))
    with caplog.at_level(logging.WARNING, "ssd"):
        load_weights(table, str(tmp_path / "model.pt"), ["a", "b", "c"])
    assert "was trained with other priors" in caplog.text
    assert torch.equal(table.box_head.fc6.weight, model.box_head.fc6.weight)


def test_torchvisions_detector_is_taken_but_for_the_outputs_of_its_anchors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with torch.device("meta"):
        names = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).state_dict()
    torch.save(
        {key: torch.full((), 0.5).expand(value.shape) for key, value in names.items()}, tmp_path / "d.pth"
    )
    model = FasterRCNN(FasterRCNNConfig("resnet50", 64, 4, anchor_levels=LEVELS))
    load_weights(model, str(tmp_path / "d.pth"))
    assert "has other anchors than those of model.priors" in caplog.text
    fresh = {
        key for key, value in model.state_dict().items() if not (value == 0.5).all() and "num_b" not in key
    }
    assert fresh == {f"{name}{kind}" for name in RPN_OUTPUTS for kind in ("weight", "bias")}


def test_the_params_choose_between_kmeans_and_the_table(make_params: Callable[..., Params]) -> None:
    changes = {"model.family": "faster_rcnn", "model.backbone": "resnet18", "model.width": 8}
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.6], [0.2, 0.2, 0.9, 0.5], [0.0, 0.0, 0.1, 0.1]])
    paper, kmeans = (
        make_params(**changes, **{"model.priors": kind, "model.prior_clusters": 2}).model
        for kind in ("paper", "kmeans")
    )
    assert build_model(paper, ["a"], boxes, 0, "none").config.cell_priors == CONFIG_OF_TABLE.cell_priors
    found = build_model(kmeans, ["a"], boxes, 0, "none").config.cell_priors
    assert len({shape for level in found for shape in level.shapes}) == 2
    with pytest.raises(UserError, match=r"model\.priors: found table with family: faster_rcnn; .*paper or"):
        make_params(**changes, **{"model.priors": "table"})


CONFIG_OF_TABLE = replace(CONFIG, anchor_levels=())
