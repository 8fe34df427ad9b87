"""The same outputs as torchvision's `ssd300_vgg16`, an independent implementation."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16

from ssd.boxes import cxcywh_to_xyxy
from ssd.inference import pretrained
from ssd.loading.batch_augment import normalise
from ssd.models.saved import load_model
from ssd.models.ssd import SSD
from ssd.models.torchvision_ssd import convert_ssd300_vgg16, ssd300_vgg16_config
from ssd.postprocess import PostProcessor, PostProcessSettings

NUM_CLASSES = 21


@pytest.fixture(scope="module")
def peer() -> torch.nn.Module:
    """torchvision's detector, its heads as varied as trained ones."""
    torch.manual_seed(0)
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=NUM_CLASSES).eval()
    with torch.no_grad():
        model.backbone.scale_weight.mul_(torch.rand(512) + 0.5)
        for parameter in model.head.parameters():
            parameter.normal_(std=0.003)
    return model


@pytest.fixture(scope="module")
def ours(peer: torch.nn.Module) -> SSD:
    model = SSD(ssd300_vgg16_config(NUM_CLASSES)).eval()
    model.load_state_dict(convert_ssd300_vgg16(peer.state_dict()))
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(
        0, 256, (2, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_it_has_the_same_priors(peer: torch.nn.Module, ours: SSD, images: Tensor) -> None:
    transformed, _ = peer.transform(list(images / 255))
    anchors = peer.anchor_generator(transformed, list(peer.backbone(transformed.tensors).values()))[0]
    assert len(ours.priors) == 8732
    torch.testing.assert_close(cxcywh_to_xyxy(ours.priors) * 300, anchors, atol=1e-4, rtol=0)


def test_it_gives_the_same_logits_and_offsets(peer: torch.nn.Module, ours: SSD, images: Tensor) -> None:
    with torch.inference_mode():
        transformed, _ = peer.transform(list(images / 255))
        expected = peer.head(list(peer.backbone(transformed.tensors).values()))
        loc, logits = ours(normalise(images))
    spread = expected["cls_logits"].std()
    assert (logits - expected["cls_logits"]).abs().max() < 1e-4 * spread
    assert (loc - expected["bbox_regression"]).abs().max() < 1e-4 * expected["bbox_regression"].std()


def test_it_finds_the_same_objects(peer: torch.nn.Module, ours: SSD, images: Tensor) -> None:
    settings = PostProcessSettings(
        peer.score_thresh, peer.nms_thresh, peer.topk_candidates, peer.detections_per_img
    )
    with torch.inference_mode():
        expected = peer(list(images / 255))
        boxes, scores, labels, num_detections = PostProcessor(ours.priors, settings)(*ours(normalise(images)))
    assert num_detections.tolist() == [len(image["scores"]) for image in expected]
    assert num_detections.min() > 50
    for row, image in enumerate(expected):
        num = int(num_detections[row])
        found = torch.cat([labels[row, :num, None], scores[row, :num, None], boxes[row, :num]], dim=1)
        wanted = torch.cat([image["labels"][:, None], image["scores"][:, None], image["boxes"] / 300], dim=1)
        # By nearest partner: equal scores may come in another order.
        difference = (found[:, None] - wanted).abs().amax(2)
        assert difference.amin(0).max() < 2e-4
        assert difference.amin(1).max() < 2e-4


def test_the_published_detector_becomes_a_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        network = ssd300_vgg16(weights=None, weights_backbone=None)
    state = {key: torch.full(value.shape, 0.01) for key, value in network.state_dict().items()}
    monkeypatch.setattr(pretrained, "fetch_weights", lambda *_: Path("published.pth"))
    monkeypatch.setattr(pretrained, "read_state", lambda _: state)
    pretrained.save_coco_model(tmp_path / "coco.pt")
    model, names = load_model(tmp_path / "coco.pt")
    assert model.config == ssd300_vgg16_config()
    assert len(names) == len(set(names)) == 90
    assert (names[0], names[89], names[11]) == ("person", "toothbrush", "unused 12")
    assert (model.backbone.conv4_scale == 0.01).all()


def test_a_name_of_another_network_is_an_error() -> None:
    with pytest.raises(KeyError, match="layer1"):
        convert_ssd300_vgg16({"layer1.weight": torch.zeros(1)})
