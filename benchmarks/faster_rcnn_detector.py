"""One image through Faster R-CNN on the CPU, uint8 pixels to detections, against torchvision's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.detector import Found, agree, our_step, torchvision_step
from benchmarks.harness import Benchmark, Comparison
from benchmarks.scenes import background_bias
from benchmarks.torchvision_faster_rcnn import (
    NUM_CLASSES,
    SETTINGS,
    SIDE,
    State,
    our_model,
    torchvision_model,
)
from ssd.detector import Detector

NUM_CANDIDATES = 150


@dataclass(frozen=True)
class Inputs:
    """Weights of torchvision's network, and an image, uint8 [1, 3, S, S]."""

    state: State
    image: Tensor


def benchmark(side: int = SIDE, runs: int = 9) -> Benchmark[Inputs]:
    """Both in float32, with torchvision's thresholds."""
    return Benchmark(
        name="faster_rcnn_detector",
        settings={
            "backbone": "resnet50",
            "input side": side,
            "classes": NUM_CLASSES,
            "proposals": 1000,
            "above the score threshold, about": NUM_CANDIDATES,
        },
        make_inputs=partial(make_inputs, side),
        candidates={"ours": ours, "torchvision": torchvisions},
        comparisons=(
            Comparison(
                f"one image, Faster R-CNN, resnet50, {side} pixels", "ours", "torchvision", min_ratio=1
            ),
        ),
        agree=partial(agree, threshold=SETTINGS.score_threshold),
        runs=runs,
    )


@torch.inference_mode()
def make_inputs(side: int) -> Inputs:
    """An untrained network with about as many scores above the threshold as a trained one has."""
    image = torch.randint(256, (1, 3, side, side), dtype=torch.uint8)
    peer = torchvision_model(side)
    # Offsets that are too large would make most proposals the whole image, of which NMS leaves one.
    peer.rpn.head.bbox_pred.weight.normal_(std=0.003)
    classes = peer.roi_heads.box_predictor.cls_score
    classes.weight.normal_(std=0.05)
    *_, logits, _ = Detector(our_model(side, peer.state_dict()).eval(), SETTINGS).raw_outputs(image)
    classes.bias[0] += background_bias(logits, SETTINGS.score_threshold, NUM_CANDIDATES)
    return Inputs(peer.state_dict(), image)


def ours(inputs: Inputs) -> Callable[[], Found]:
    return our_step(Detector(our_model(inputs.image.shape[-1], inputs.state), SETTINGS), inputs.image)


def torchvisions(inputs: Inputs) -> Callable[[], Found]:
    return torchvision_step(torchvision_model(inputs.image.shape[-1], inputs.state).eval(), inputs.image)
