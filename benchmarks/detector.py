"""One image on the CPU, uint8 pixels to detections, against torchvision's SSD with the same weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Comparison
from benchmarks.scenes import bias_to_background
from benchmarks.torchvision_ssd import NUM_CLASSES, SIDE, our_model, torchvision_model
from ssd.detector import Detector
from ssd.models.ssd import SSD
from ssd.postprocess import PostProcessSettings

BACKBONE = "resnet50"
NUM_CANDIDATES = 150

Found = tuple[Tensor, Tensor, Tensor]
"""Boxes xyxy in pixels, scores and labels, best first."""


@dataclass(frozen=True)
class Inputs:
    """A network in eval mode and an image, uint8 [1, 3, S, S]."""

    model: SSD
    image: Tensor


def benchmark(backbone: str = BACKBONE, runs: int = 25) -> Benchmark[Inputs]:
    """Both in float32, with the paper's thresholds."""
    return Benchmark(
        name="detector",
        settings={
            "backbone": backbone,
            "input side": SIDE,
            "classes": NUM_CLASSES,
            "above the score threshold, about": NUM_CANDIDATES,
        },
        make_inputs=partial(make_inputs, backbone),
        candidates={"ours": ours, "torchvision": torchvisions},
        comparisons=(Comparison(f"one image, {backbone}, {SIDE} pixels", "ours", "torchvision"),),
        agree=agree,
        warmup=5,
        runs=runs,
    )


def make_inputs(backbone: str) -> Inputs:
    """An untrained network with about as many scores above the threshold as a trained one has."""
    model = our_model(backbone).eval()
    image = torch.randint(256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    bias_to_background(model, image, NUM_CANDIDATES)
    return Inputs(model, image)


def ours(inputs: Inputs) -> Callable[[], Found]:
    return our_step(Detector(inputs.model, PostProcessSettings()), inputs.image)


def our_step(detector: Detector, image: Tensor) -> Callable[[], Found]:
    @torch.inference_mode()
    def step() -> Found:
        boxes, scores, labels, counts = detector(image)
        num = int(counts)
        return boxes[0, :num], scores[0, :num], labels[0, :num]

    return step


def torchvisions(inputs: Inputs) -> Callable[[], Found]:
    peer = torchvision_model(inputs.model).eval()
    for theirs, heads in (
        (peer.head.regression_head.module_list, inputs.model.heads.loc),
        (peer.head.classification_head.module_list, inputs.model.heads.conf),
    ):
        for their_head, head in zip(theirs, heads, strict=True):
            their_head.load_state_dict(head.state_dict())
    return torchvision_step(peer, inputs.image)


def torchvision_step(peer: Any, images: Tensor) -> Callable[[], Found]:
    @torch.inference_mode()
    def step() -> Found:
        (found,) = peer([image.float() / 255 for image in images])
        return found["boxes"], found["scores"], found["labels"]

    return step


def agree(found: Mapping[str, Found], threshold: float = PostProcessSettings().score_threshold) -> None:
    """The same detections, up to rounding, which decides about those at the very score threshold."""
    boxes, scores, labels = above_rounding(found["ours"], threshold)
    their_boxes, their_scores, their_labels = above_rounding(found["torchvision"], threshold)
    assert len(scores) == len(their_scores) > 0
    torch.testing.assert_close(scores, their_scores, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(boxes, their_boxes, rtol=0, atol=0.1)
    assert torch.equal(labels, their_labels)


def above_rounding(found: Found, threshold: float) -> Found:
    """The detections, best first, whose scores are clearly above the threshold."""
    boxes, scores, labels = found
    num = int((scores > 1.01 * threshold).sum())
    return boxes[:num], scores[:num], labels[:num]
