"""Decoding and NMS of a batch against torchvision's `SSD.postprocess_detections`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Comparison
from benchmarks.scenes import random_targets, trained_outputs
from benchmarks.torchvision_ssd import NUM_CLASSES, SIDE, anchors, our_model, torchvision_model
from ssd.postprocess import PostProcessor, PostProcessSettings

BATCH_SIZE = 8

Found = list[tuple[Tensor, Tensor, Tensor]]
"""Boxes xyxy in pixels, scores and labels of each image, best first."""


@dataclass(frozen=True)
class Outputs:
    """Raw outputs of a network: loc [B, P, 4], logits [B, P, C]; priors [P, 4]."""

    loc: Tensor
    logits: Tensor
    priors: Tensor


def benchmark(batch_size: int = BATCH_SIZE) -> Benchmark[Outputs]:
    """Both with the paper's thresholds: score 0.01, IoU 0.45, 400 candidates per class, 200 kept."""
    settings = PostProcessSettings()
    outputs = make_outputs(batch_size)
    candidates = outputs.logits.softmax(-1)[..., 1:] > settings.score_threshold
    return Benchmark(
        name="postprocess",
        settings={
            "batch": batch_size,
            "priors": len(outputs.priors),
            "classes": NUM_CLASSES,
            "above the score threshold, an image": round(int(candidates.sum()) / batch_size),
            "kept": settings.max_detections,
        },
        make_inputs=lambda: outputs,
        candidates={"ours": ours, "torchvision": torchvisions},
        comparisons=(Comparison(f"decoding and NMS, batch {batch_size}", "ours", "torchvision"),),
        agree=agree,
        warmup=5,
        runs=25,
    )


def make_outputs(batch_size: int) -> Outputs:
    generator = torch.Generator().manual_seed(0)
    priors = our_model("resnet18").priors
    targets = random_targets(batch_size, NUM_CLASSES, generator)
    return Outputs(*trained_outputs(targets, priors, NUM_CLASSES, generator), priors)


def ours(outputs: Outputs) -> Callable[[], Found]:
    postprocessor = PostProcessor(outputs.priors, PostProcessSettings())

    @torch.inference_mode()
    def step() -> Found:
        boxes, scores, labels, counts = postprocessor(outputs.loc, outputs.logits)
        boxes = boxes * SIDE
        return [(boxes[i, :n], scores[i, :n], labels[i, :n]) for i, n in enumerate(counts.tolist())]

    return step


def torchvisions(outputs: Outputs) -> Callable[[], Found]:
    peer: Any = torchvision_model(our_model("resnet18")).eval()
    heads = {"bbox_regression": outputs.loc, "cls_logits": outputs.logits}
    batch_size = len(outputs.loc)
    boxes, shapes = [anchors(outputs.priors)] * batch_size, [(SIDE, SIDE)] * batch_size

    @torch.inference_mode()
    def step() -> Found:
        found = peer.postprocess_detections(heads, boxes, shapes)
        return [(item["boxes"], item["scores"], item["labels"]) for item in found]

    return step


def agree(found: Mapping[str, Found]) -> None:
    """The same detections, up to the rounding of a decoded coordinate."""
    for ours, theirs in zip(found["ours"], found["torchvision"], strict=True):
        assert len(ours[1]) == len(theirs[1]) > 0
        torch.testing.assert_close(ours[1], theirs[1])
        torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=0.01)
        assert torch.equal(ours[2], theirs[2])
