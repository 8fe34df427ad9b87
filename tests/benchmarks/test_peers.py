"""Both sides of each benchmark do the same work, at small sizes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks import (
    bootstrap,
    detector,
    evaluation,
    evaluation_stage,
    faster_rcnn_detector,
    faster_rcnn_step,
    gpu_training,
    input_pipeline,
    matching_loss,
    postprocess,
    training_step,
)
from benchmarks.harness import Benchmark, take_turns
from benchmarks.torchvision_ssd import SIDE, anchors, as_torchvision, our_model, torchvision_model
from ssd.training.history import Epoch


@pytest.mark.parametrize(
    "make",
    [
        lambda: matching_loss.benchmark([2]),
        lambda: postprocess.benchmark(2),
        lambda: detector.benchmark("resnet18"),
        lambda: faster_rcnn_detector.benchmark(side=64),
        lambda: evaluation.benchmark(20),
        lambda: evaluation_stage.benchmark(2),
        lambda: bootstrap.benchmark({"small": (20, 2, 1.0)}, num_resamples=3),
    ],
    ids=[
        "matching_loss",
        "postprocess",
        "detector",
        "faster_rcnn_detector",
        "evaluation",
        "evaluation_stage",
        "bootstrap",
    ],
)
def test_results_agree(make: Callable[[], Benchmark[Any]]) -> None:
    """By the benchmark's own check, which fails on other losses, detections or figures."""
    benchmark = replace(make(), warmup=1, runs=1)
    assert set(take_turns(benchmark)) == set(benchmark.candidates)


def test_a_different_result_is_noticed() -> None:
    with pytest.raises(AssertionError):
        matching_loss.agree({"ours_8": 1.0, "torchvision_8": 1.1})
    with pytest.raises(AssertionError):
        faster_rcnn_step.agree({"ours": 1.2, "torchvision": 1.0})
    found = (torch.zeros(1, 4), torch.ones(1), torch.ones(1, dtype=torch.int64))
    moved = (torch.ones(1, 4), *found[1:])
    with pytest.raises(AssertionError):
        postprocess.agree({"ours": [found], "torchvision": [moved]})
    findings = evaluation.make_findings(10)
    less = evaluation.make_findings(9)
    with pytest.raises(AssertionError):
        evaluation.agree(
            {
                "ours_coco": evaluation.ours_coco(findings)(),
                "pycocotools": evaluation.pycocotools(less)(),
            }
        )


def test_torchvision_has_our_priors_and_our_maps() -> None:
    model = our_model("resnet18")
    peer = torchvision_model(model).eval()
    images = torch.zeros(1, 3, SIDE, SIDE)
    batch, _ = peer.transform(list(images))
    maps = list(peer.backbone(images).values())
    (boxes,) = peer.anchor_generator(batch, maps)
    assert len(model.priors) == 8732
    torch.testing.assert_close(boxes, anchors(model.priors), rtol=0, atol=1e-3)
    heads = peer.head(maps)
    loc, logits = model(images)
    assert heads["bbox_regression"].shape == loc.shape
    assert heads["cls_logits"].shape == logits.shape


@pytest.mark.slow
def test_training_steps_update_the_weights() -> None:
    data = training_step.make_data(2)
    train = training_step.ours(data.batch, "resnet18", compiled=False)
    first, _, last = train(), train(), train()
    assert first[3] == last[3] == 0, "no step was left out"
    assert last[0] < first[0], "it learns the one batch"
    for autocast in (None, torch.bfloat16):
        train_peer = training_step.torchvisions(data.batch, "resnet18", autocast)
        losses = [train_peer() for _ in range(3)]
        assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_first_losses_of_faster_rcnn_agree() -> None:
    benchmark = faster_rcnn_step.benchmark(side=64)
    data = benchmark.make_inputs()
    benchmark.agree({name: build(data)() for name, build in benchmark.candidates.items()})


def test_targets_are_the_same_in_both_forms() -> None:
    targets = training_step.make_data(3).batch.targets
    for row, item in enumerate(as_torchvision(targets)):
        count = int((targets.labels[row] > 0).sum())
        assert torch.equal(item["labels"], targets.labels[row, :count])
        torch.testing.assert_close(item["boxes"] / SIDE, targets.boxes[row, :count])


def test_pipelines_give_batches_of_the_same_form() -> None:
    benchmark = input_pipeline.benchmark(num_images=6, batch_size=3)
    images = benchmark.make_inputs()
    batches = {name: build(images)() for name, build in benchmark.candidates.items()}
    for batch in batches.values():
        assert (batch.shape, batch.dtype) == ((3, 3, SIDE, SIDE), torch.float32)
        assert -2.2 < batch.min() < batch.max() < 2.7, "normalised"
    torch.testing.assert_close(batches["ours"], batches["ours_cached"])


@pytest.mark.parametrize(
    ("images_per_s", "wait", "met"), [(4100.0, 0.04, True), (3900.0, 0.04, False), (4100.0, 0.06, False)]
)
def test_the_aim_on_a_gpu_is_speed_without_waiting(images_per_s: float, wait: float, met: bool) -> None:
    blank = dict.fromkeys(Epoch.__dataclass_fields__, 0)
    epochs = [Epoch(**{**blank, "images_per_s": images_per_s, "data_wait": wait})] * 3
    row = gpu_training.row(epochs, 64, 1000.0, has_aim=True)
    assert (row.ours, row.met) == (images_per_s, met)
    assert gpu_training.row(epochs, 64, 1000.0, has_aim=False).met is None
