"""The detector: pixels in, pixels out, and pre-processing as in training and evaluation."""

import pytest
import torch
from torch import Tensor

from ssd.detector import Detector, scale_boxes
from ssd.loading.batch_augment import normalise
from ssd.loading.view import full_view, render
from ssd.models.config import paper_config
from ssd.models.ssd import SSD
from ssd.postprocess import PostProcessor, PostProcessSettings


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    model = SSD(paper_config("resnet18", 64, 4, 0.1, 0.2, 1.05)).eval()
    for head in model.heads.conf:
        torch.nn.init.normal_(head.bias)
    return Detector(model, PostProcessSettings(score_threshold=0.2, max_detections=20))


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (90, 33), (30, 20), (1, 5), (65, 63), (700, 9)])
@torch.inference_mode()
def test_it_resizes_as_training_and_evaluation_do_up_to_their_rounding(
    detector: Detector, size: tuple[int, int]
) -> None:
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    seen: list[Tensor] = []
    hook = detector.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    detector(images)
    hook.remove()
    rendered = torch.stack(
        [render(x, full_view(*size), 64, torch.zeros(3, dtype=torch.uint8)) for x in images]
    )
    levels = (seen[0] - normalise(rendered)) * detector.std
    # That kernel rounds to whole levels after the rows and after the columns: half a level each.
    assert levels.abs().max() < 1.01
    assert levels.abs().mean() < 0.4


@torch.inference_mode()
def test_boxes_are_those_of_the_post_processor_in_pixels(detector: Detector) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    boxes, scores, labels, num_detections = detector(images)
    postprocessor = PostProcessor(detector.model.priors, detector.postprocessor.settings)
    expected = postprocessor(*detector.model(normalise(images)))
    torch.testing.assert_close(boxes, expected[0] * 64, rtol=0, atol=1e-3)
    torch.testing.assert_close(scores, expected[1], rtol=0, atol=1e-5)
    assert torch.equal(labels, expected[2])
    assert torch.equal(num_detections, expected[3])
    assert (num_detections > 0).all()


def test_x_is_scaled_by_width_and_y_by_height() -> None:
    boxes = torch.tensor([[[0.0, 0.25, 0.5, 1.0]]])
    assert scale_boxes(boxes, 40, 100).tolist() == [[[0.0, 10.0, 50.0, 40.0]]]


@torch.inference_mode()
def test_boxes_stay_inside_the_image(detector: Detector) -> None:
    boxes, _, _, _ = detector(torch.randint(0, 256, (3, 3, 50, 200), dtype=torch.uint8))
    assert boxes.min() >= 0
    assert boxes[..., 0::2].max() <= 200
    assert boxes[..., 1::2].max() <= 50
