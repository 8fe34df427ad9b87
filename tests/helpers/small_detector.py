"""Small detectors with random weights that detect dozens of things in any picture, and such pictures."""

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssd.detector import Outputs
from ssd.models.config import paper_config
from ssd.models.family import Model
from ssd.models.faster_rcnn.config import FasterRCNNConfig
from ssd.models.faster_rcnn.network import FasterRCNN
from ssd.models.ssd import SSD
from ssd.postprocess import PostProcessSettings

SIDE = 64
CLASS_NAMES = ["zebra", "café", "a b"]
SETTINGS = PostProcessSettings(score_threshold=0.5, nms_iou=0.45, max_per_class=50, max_detections=45)
"""Some pictures give K detections and more, some fewer; more priors reach the threshold than NMS takes."""

SIZES = [(64, 64), (200, 90), (33, 150), (40, 30), (7, 9), (1, 1), (65, 63)]
"""(height, width): the input size, shrunk, wide, enlarged, tiny, one pixel, nearly the input size."""


def scenes(num_images: int, height: int, width: int, seed: int = 0) -> Tensor:
    """uint8 [N, 3, H, W]: blurred colours and noise, so that no two scores are equal."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(0, 256, (num_images, 3, 5, 6), generator=generator).float()
    noise = torch.randint(-20, 21, (num_images, 3, height, width), generator=generator)
    smooth = F.interpolate(colours, (height, width), mode="bilinear")
    return (smooth + noise).clamp(0, 255).to(torch.uint8)


def build_model(seed: int = 0, num_classes: int = len(CLASS_NAMES)) -> SSD:
    """A ResNet18-SSD whose scores cover everything from 0 to 1; num_classes: without background."""
    return copy.deepcopy(_built(seed, num_classes))


@cache
def _built(seed: int, num_classes: int) -> SSD:
    torch.manual_seed(seed)
    model = SSD(paper_config("resnet18", SIDE, num_classes + 1, 0.1, 0.2, 1.05))
    _take_statistics(model)
    for head in model.heads.conf:
        nn.init.normal_(head.weight, std=0.05)
    for head in model.heads.loc:
        nn.init.normal_(head.weight, std=0.02)
    return model.eval()


def build_faster_rcnn(num_classes: int = len(CLASS_NAMES)) -> FasterRCNN:
    """The same of a ResNet18 Faster R-CNN with few channels and proposals, all of high objectness.

    Float32 sigmoids of an objectness of 12 are equal for different values, or, in ONNX Runtime, in another
    order.
    """
    torch.manual_seed(0)
    few = {"width": 16, "rpn_proposals": 60, "roi_width": 32}
    model = FasterRCNN(FasterRCNNConfig("resnet18", SIDE, num_classes + 1, **few))
    _take_statistics(model)
    spread_scores(model)
    nn.init.constant_(model.rpn.cls_logits.bias, 12)
    return model.eval()


def spread_scores(model: FasterRCNN) -> None:
    """Other weights of its last layers, with which scores cover everything from 0 to 1."""
    layers = (model.rpn.cls_logits, model.rpn.bbox_pred, model.predictor.cls_score, model.predictor.bbox_pred)
    for layer, std in zip(layers, (0.3, 0.05, 0.5, 0.1), strict=True):
        nn.init.normal_(layer.weight, std=std)


def _take_statistics(model: Model) -> None:
    """Into all batch norms, of scenes."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # those of the one batch below
    with torch.no_grad():
        model.train()((scenes(16, SIDE, SIDE).float() - 110) / 58)


def assert_same_detections(found: Outputs, expected: Outputs) -> None:
    """Every detection of one has its equal among the other's, up to float rounding and order."""
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
    assert found[3].tolist() == expected[3].tolist()
    for image, number in enumerate(expected[3].tolist()):
        rows = [
            torch.cat([x[image].view(x.shape[1], -1) for x in side[:3]], dim=1) for side in (found, expected)
        ]
        distance = (rows[0][:number, None] - rows[1][:number]).abs() / torch.tensor([200.0] * 4 + [1.0, 1.0])
        distance = distance.amax(-1)
        if number:
            assert max(distance.amin(0).max(), distance.amin(1).max()) < 1e-5
        assert not rows[0][number:].any()
