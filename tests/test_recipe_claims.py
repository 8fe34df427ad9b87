"""What the header of each recipe says of its source, in the source's own numbers, against what is built."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import sqrt

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from recipes import FOLDER, recipe_params, recipe_priors
from ssd.boxes import cxcywh_to_xyxy
from ssd.loading.augment import sample_view
from ssd.loading.view import full_view
from ssd.models.ssd import SSD
from ssd.params import AugmentParams
from ssd.structures import Objects
from ssd.training.schedule import learning_rate

FEW, MANY = (1.0, 2.0, 1 / 2), (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
SSD300_MAPS, SSD300_STEPS = (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)
VOC_SIZES, COCO_SIZES = (30, 60, 111, 162, 213, 264, 315), (21, 45, 99, 153, 207, 261, 315)
PAPER_RATIOS = (FEW, MANY, MANY, MANY, FEW, FEW)


@dataclass(frozen=True)
class Claims:
    """A system as its source describes it.

    maps: cells per side; sizes: of the square priors, pixels, and the next one; steps: pixels between
    centres, () for evenly spaced ones; ratios: width / height, per map; clipped: whether sides are cut to the
    image. lr: learning rate in the middle of some epochs, from 0. loss: what differs from the paper's.
    scored: score threshold, NMS IoU and number of detections of the published figures. train, augment: other
    keys of these sections. others: section.key of all others.
    """

    maps: Sequence[int] = SSD300_MAPS
    sizes: Sequence[float] = VOC_SIZES
    steps: Sequence[int] = ()
    ratios: Sequence[Sequence[float]] = PAPER_RATIOS
    clipped: bool = False
    side: int = 300
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0005
    lr: dict[int, float] = field(default_factory=dict)
    batch_size: int = 32
    clip_norm: float = 0.0
    loss: dict[str, object] = field(default_factory=dict)
    scored: tuple[float, float, int] = (0.01, 0.45, 200)
    train: dict[str, object] = field(default_factory=dict)
    augment: dict[str, object] = field(default_factory=dict)
    others: dict[str, object] = field(default_factory=dict)


# "Images without positives (or objects) teach by a few negatives."
EMPTY_TEACH = {"min_negatives": 8}
DIFFICULT = {"train_on_difficult": True}
NO_EMPTY = {"skip_empty": True, "select_by": "map", **EMPTY_TEACH}
JITTER = {"zoom_out": 0.0, "crop": 1.0, "flip": 0.5, "photometric": 1.0, "channel_shuffle": 0.0}
PAPER = {
    "zoom_out": 0.5,
    "zoom_max": 4.0,
    "crop": 1.0,
    "flip": 0.5,
    "photometric": 0.5,
    "channel_shuffle": 0.0,
}

CLAIMS = {
    "voc0712-ssd300-vgg16": Claims(
        steps=SSD300_STEPS,
        lr={100: 1e-3, 154: 1e-3, 155: 1e-4, 192: 1e-4, 194: 1e-5, 231: 1e-5},
        train={**DIFFICULT, **EMPTY_TEACH, "epochs": 232},
        augment=PAPER,
    ),
    "voc0712-ssd300-resnet50": Claims(lr={79: 4e-3, 81: 4e-4, 101: 4e-5}, train=DIFFICULT, augment=PAPER),
    "voc0712-ssd300-resnet34": Claims(
        lr={106: 2.6e-3, 108: 2.6e-4, 134: 2.6e-5}, train=DIFFICULT, augment=PAPER
    ),
    "voc0712-ssd512-resnet50": Claims(
        side=512,
        maps=(32, 16, 8, 4, 2, 1),
        sizes=(51.2, 102.4, 189.4, 276.4, 363.52, 450.6, 492),
        steps=(16, 32, 64, 128, 256, 512),
        clipped=True,
        lr={159: 1e-3, 160: 1e-4, 199: 1e-4, 200: 1e-5},
        scored=(0.01, 0.45, 100),
        train={**DIFFICULT, **EMPTY_TEACH, "epochs": 240},
        augment=PAPER,
    ),
    "voc07-ssd300-resnet50": Claims(
        lr={60: 1e-3, 119: 1e-3},
        clip_norm=5.0,
        train={**DIFFICULT, "schedule": "plateau", "plateau_threshold": 1e-4, "select_by": "train_loss"},
        augment=PAPER,
        others={"preprocess.train_on_val": True, "preprocess.val_fraction": 0.0},
    ),
    "coco-ssd300-vgg16": Claims(
        sizes=COCO_SIZES,
        steps=SSD300_STEPS,
        clipped=True,
        lr={79: 2e-3, 80: 2e-4, 109: 2e-4, 110: 2e-5},
        train={**NO_EMPTY, "epochs": 120},
        augment={**PAPER, "channel_shuffle": 0.5},
    ),
    "coco-ssd300-resnet50": Claims(
        sizes=COCO_SIZES,
        steps=SSD300_STEPS,
        lr={42: 2.6e-3, 43: 2.6e-4, 53: 2.6e-4, 54: 2.6e-5},
        scored=(0.05, 0.5, 200),
        train={**NO_EMPTY, "epochs": 65},
        augment=JITTER,
    ),
    "coco-ssd300-resnet34": Claims(
        sizes=COCO_SIZES,
        steps=SSD300_STEPS,
        lr={0: 2.5e-3, 39: 2.5e-3, 40: 2.5e-4, 49: 2.5e-4, 50: 2.5e-5},
        scored=(0.05, 0.5, 200),
        train=NO_EMPTY,
        augment=JITTER,
    ),
    "coco-ssdlite320-mobilenetv3": Claims(
        side=320,
        maps=(20, 10, 5, 3, 2, 1),
        sizes=(64, 112, 160, 208, 256, 304, 320),
        ratios=(MANY,) * 6,
        clipped=True,
        weight_decay=4e-5,
        lr={330: 0.075},
        batch_size=192,
        scored=(0.001, 0.55, 300),
        train={**NO_EMPTY, "schedule": "cosine", "epochs": 660},
        augment={"zoom_out": 0.0, "crop": 1.0, "flip": 0.5, "photometric": 0.0},
    ),
    "penn-fudan-ssd300-resnet34": Claims(
        sizes=(30, 60, 111, 162, 213, 264, 315),
        ratios=((1 / 2, 1 / 3, 1 / 4),) * 6,
        clipped=True,
        optimizer="adam",
        weight_decay=0.0,
        lr={0: 1e-3, 99: 1e-3},
        batch_size=8,
        loss={"negatives": 4.0, "smooth_l1_beta": 0.1},
        train={"schedule": "constant", "select_by": "train_loss"},
        augment={
            **{"object_shape": "box", "object_min": 1.2, "object_max": 2.0},
            **{"crop_area": 0.08, "crop_ratio": pytest.approx(4 / 3)},
            **{"photometric": 0.5, "channel_shuffle": 0.5},
        },
        others={
            **{"preprocess.val_fraction": 0.0, "preprocess.test_fraction": 0.2},
            **{"model.heads": "conv1x1", "model.width": 256},
            **{"export.score_threshold": 0.5, "export.nms_iou": 0.45, "export.max_detections": 20},
        },
    ),
}
# Their headers name no source.
OWN = {"default", "bccd-ssd300-resnet18", "own-data-small"}
FASTER_RCNN = {path.stem for path in FOLDER.glob("*faster-rcnn*.yaml")}  # see test_faster_rcnn_recipes.py
DATA = {
    **{"voc0712": "voc0712", "voc07": "voc2007", "coco": "coco"},
    **{"penn-fudan": "penn_fudan", "bccd": "voc_dir"},
}
PAPER_LOSS = {
    "conf_loss": "cross_entropy",
    "box_loss": "smooth_l1",
    "smooth_l1_beta": 1.0,
    "match_iou": 0.5,
    "negatives": 3.0,
    "negatives_by": "loss",
    "box_weight": 1.0,
    "label_smoothing": 0.0,
}
# One object of a person's shape and one small one, in an image of 300 x 400.
OBJECTS = Objects(
    torch.tensor([[180.0, 60.0, 250.0, 260.0], [30.0, 40.0, 70.0, 70.0]]),
    torch.tensor([1, 1]),
    torch.zeros(2, dtype=torch.bool),
)


def test_every_recipe_with_a_source_has_claims() -> None:
    assert CLAIMS.keys() == {path.stem for path in FOLDER.glob("*.yaml")} - OWN - FASTER_RCNN


@pytest.mark.parametrize("name", [*CLAIMS, "bccd-ssd300-resnet18"])
def test_it_is_what_its_name_says(name: str) -> None:
    """Data, kind of heads, pixels and backbone; ImageNet's weights, but for blood cells, from scratch."""
    data, kind, backbone = name.rsplit("-", 2)
    params = recipe_params(name)
    assert params.data.source == DATA[data]
    assert kind.removeprefix("ssdlite").removeprefix("ssd") == str(params.model.input_size)
    assert (params.model.heads == "ssdlite") == kind.startswith("ssdlite")
    assert params.model.backbone.replace("_", "").startswith(backbone)
    assert params.model.weights == ("none" if data == "bccd" else "imagenet")


def test_the_start_for_own_data_is_what_was_measured_on_blood_cells() -> None:
    own, measured = (recipe_params(name).model_dump() for name in ("own-data-small", "bccd-ssd300-resnet18"))
    assert own.pop("data") | {"source": "voc_dir"} == measured.pop("data")
    assert own == measured


@pytest.mark.parametrize("name", ["coco-ssd300-resnet34", "coco-ssd300-resnet50"])
def test_mlperf_s_and_nvidia_s_backbones_end_after_conv4(name: str) -> None:
    assert recipe_params(name).model.backbone.endswith("_conv4")


@pytest.mark.parametrize("name", CLAIMS)
def test_its_priors_are_those_of_its_source(name: str) -> None:
    claims = CLAIMS[name]
    expected = torch.tensor(
        [prior for level in range(len(claims.maps)) for prior in source_priors(claims, level)]
    )
    torch.testing.assert_close(recipe_priors(name) * claims.side, expected, atol=0.01, rtol=0)


def source_priors(claims: Claims, level: int) -> list[tuple[float, float, float, float]]:
    """cxcywh in pixels, cell by cell: of each ratio, after the first the extra square."""
    cells, size, following = claims.maps[level], claims.sizes[level], claims.sizes[level + 1]
    step = claims.steps[level] if claims.steps else claims.side / cells
    shapes = [(size * sqrt(ratio), size / sqrt(ratio)) for ratio in claims.ratios[level]]
    shapes.insert(1, (sqrt(size * following), sqrt(size * following)))
    if claims.clipped:
        shapes = [(min(w, claims.side), min(h, claims.side)) for w, h in shapes]
    return [
        ((column + 0.5) * step, (row + 0.5) * step, *shape)
        for row in range(cells)
        for column in range(cells)
        for shape in shapes
    ]


@pytest.mark.parametrize("name", ["coco-ssd300-vgg16", "coco-ssdlite320-mobilenetv3"])
def test_torchvision_s_systems_have_torchvision_s_priors(name: str) -> None:
    claims = CLAIMS[name]
    generator = DefaultBoxGenerator(
        [[ratio for ratio in ratios if ratio > 1] for ratios in claims.ratios],
        scales=[size / claims.side for size in claims.sizes],
        steps=list(claims.steps) or None,
    )
    images = ImageList(torch.zeros(1, 3, claims.side, claims.side), [(claims.side, claims.side)])
    (expected,) = generator(images, [torch.zeros(1, 1, cells, cells) for cells in claims.maps])
    torch.testing.assert_close(cxcywh_to_xyxy(recipe_priors(name)) * claims.side, expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("name", CLAIMS)
def test_its_optimizer_schedule_losses_and_thresholds_are_those_of_its_source(name: str) -> None:
    claims, params = CLAIMS[name], recipe_params(name)
    train, evaluate = params.train, params.evaluate
    assert (train.optimizer, train.momentum) == (claims.optimizer, claims.momentum)
    assert (train.weight_decay, train.batch_size) == (claims.weight_decay, claims.batch_size)
    assert train.clip_norm == claims.clip_norm
    num_batches = 1000
    for epoch, expected in claims.lr.items():
        step = epoch * num_batches + num_batches // 2
        found = learning_rate(step, train.epochs * num_batches, train)
        assert found == pytest.approx(expected, rel=0.02), f"epoch {epoch}"
    settings = SSD.loss_settings(train)
    for key, value in {**PAPER_LOSS, **claims.loss}.items():
        assert settings[key] == value, key
    assert (evaluate.score_threshold, evaluate.nms_iou, evaluate.max_detections) == claims.scored
    assert params.export.nms_iou == claims.scored[1]
    for section, expected_keys in ((params.train, claims.train), (params.augment, claims.augment)):
        for key, value in expected_keys.items():
            assert getattr(section, key) == value, key
    written = params.model_dump()
    for path, value in claims.others.items():
        section_name, key = path.split(".")
        assert written[section_name][key] == value, path


@dataclass(frozen=True)
class Statistics:
    """Shares of samples: the whole image or all of a canvas, a larger canvas, mirrored."""

    whole: float
    zoomed_out: float
    flipped: float


# Settings that no view depends on.
OF_COLOURS = ("photometric", "brightness", "contrast", "saturation", "hue", "channel_shuffle")


@cache
def sample(augment: AugmentParams, number: int = 3000) -> Statistics:
    views = [
        sample_view(300, 400, OBJECTS, augment, torch.Generator().manual_seed(seed)) for seed in range(number)
    ]
    whole = full_view(300, 400)
    places = [(view.x1, view.y1, view.x2, view.y2) for view in views]
    return Statistics(
        whole=sum(place == (whole.x1, whole.y1, whole.x2, whole.y2) for place in places) / number,
        zoomed_out=sum(p[0] < 0 or p[1] < 0 or p[2] > 400 or p[3] > 300 for p in places) / number,
        flipped=sum(view.flip for view in views) / number,
    )


@pytest.mark.parametrize("name", [name for name, claims in CLAIMS.items() if claims.augment.get("crop") == 1])
def test_the_paper_s_crops_leave_one_image_in_four_whole(name: str) -> None:
    """The authors' rule leaves 0.24 of the samples whole; so does ours, where nothing zooms out before."""
    augment = recipe_params(name).augment
    found = sample(augment.model_copy(update=dict.fromkeys(OF_COLOURS, 0.0)))
    assert found.flipped == pytest.approx(0.5, abs=0.03)
    if augment.zoom_out == 0:
        assert found.whole == pytest.approx(0.24, abs=0.06)
        assert found.zoomed_out == 0
    else:
        assert found.whole < 0.24
        assert 0.2 < found.zoomed_out < 0.5


def test_crops_around_persons_have_the_shape_of_their_box() -> None:
    augment = recipe_params("penn-fudan-ssd300-resnet34").augment
    always = augment.model_copy(update={"object_crop": 1.0, "resized_crop": 0.0})
    person = Objects(OBJECTS.boxes[:1], OBJECTS.labels[:1], OBJECTS.ignored[:1])
    views = [
        sample_view(600, 800, person, always, torch.Generator().manual_seed(seed)) for seed in range(500)
    ]
    ratios = torch.tensor([(view.x2 - view.x1) / (view.y2 - view.y1) for view in views])
    assert ratios.median().item() == pytest.approx(70 / 200, abs=0.1)
