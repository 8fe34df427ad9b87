"""COCO average precision, against pycocotools called directly with its own default settings."""

import contextlib
import io
import warnings

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssd.data.tensors import Objects
from ssd.metrics.coco import Backend, CocoResult, evaluate_coco
from ssd.metrics.detections import Detections

BACKENDS: list[Backend] = ["faster_coco_eval", "pycocotools"]
NAMES = ["ant", "bee", "cat", "dog"]


def random_images(seed: int, num_images: int = 25) -> tuple[list[Detections], list[Objects]]:
    """Whole-pixel boxes and coarse scores, so that ties are common; no object of the last class."""
    random = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(num_images):
        num_objects, num_detections = int(random.integers(0, 6)), int(random.integers(0, 15))
        corners = random.integers(0, 60, (num_objects, 2))
        boxes = np.concatenate([corners, corners + random.integers(5, 50, (num_objects, 2))], axis=1)
        labels = random.integers(1, 4, num_objects)
        truth.append(
            Objects(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                torch.tensor(labels),
                torch.tensor(random.random(num_objects) < 0.25),
            )
        )
        corners = random.integers(0, 60, (num_detections, 2))
        guesses = np.concatenate([corners, corners + random.integers(5, 50, (num_detections, 2))], axis=1)
        guessed = random.integers(1, 5, num_detections)
        if num_objects:
            near = random.random(num_detections) < 0.7
            copied = random.integers(0, num_objects, num_detections)
            guesses[near] = boxes[copied][near] + random.integers(-2, 3, (near.sum(), 4))
            guessed[near] = labels[copied][near]
        scores = -np.sort(-random.integers(1, 10, num_detections) / 16)
        found.append(
            Detections(
                torch.tensor(guesses, dtype=torch.float32).reshape(-1, 4),
                torch.tensor(scores, dtype=torch.float32),
                torch.tensor(guessed),
            )
        )
    return found, truth


def pycocotools_result(found: list[Detections], truth: list[Objects]) -> CocoResult:
    """The figures of pycocotools from annotations in COCO's JSON form."""

    def xywh(boxes: torch.Tensor) -> list[list[float]]:
        return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes.tolist()]

    annotations: list[dict[str, object]] = []
    results: list[dict[str, object]] = []
    for image, (d, o) in enumerate(zip(found, truth, strict=True)):
        for bbox, label, ignored in zip(xywh(o.boxes), o.labels.tolist(), o.ignored.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": int(ignored),
                }
            )
        for bbox, score, label in zip(xywh(d.boxes), d.scores.tolist(), d.labels.tolist(), strict=True):
            results.append({"image_id": image, "category_id": label, "bbox": bbox, "score": score})
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(len(found))],
        "annotations": annotations,
        "categories": [{"id": label, "name": name} for label, name in enumerate(NAMES, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()

    def known(values: np.ndarray) -> float | None:
        values = values[values > -1]
        return float(values.mean()) if len(values) else None

    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    return CocoResult(
        map=evaluation.stats[0],
        map50=evaluation.stats[1],
        map75=evaluation.stats[2],
        per_class_map={name: known(precision[:, :, k]) for k, name in enumerate(NAMES)},
        per_class_map50={name: known(precision[0, :, k]) for k, name in enumerate(NAMES)},
    )


def one_image(
    boxes: list[list[float]], truth: list[list[float]], ignored: list[bool] | None = None
) -> tuple[list[Detections], list[Objects]]:
    """Detections of class 1 with falling scores, and objects of class 1."""
    num_boxes = len(boxes)
    return (
        [
            Detections(
                torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                torch.linspace(0.9, 0.1, num_boxes),
                torch.ones(num_boxes, dtype=torch.int64),
            )
        ],
        [
            Objects(
                torch.tensor(truth, dtype=torch.float32).reshape(-1, 4),
                torch.ones(len(truth), dtype=torch.int64),
                torch.tensor(ignored or [False] * len(truth), dtype=torch.bool),
            )
        ],
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_pycocotools(backend: Backend, seed: int) -> None:
    found, truth = random_images(seed)
    got, expected = evaluate_coco(found, truth, NAMES, backend), pycocotools_result(found, truth)
    assert [got.map, got.map50, got.map75] == pytest.approx([expected.map, expected.map50, expected.map75])
    assert got.per_class_map == pytest.approx(expected.per_class_map)
    assert got.per_class_map50 == pytest.approx(expected.per_class_map50)
    assert got.per_class_map["dog"] is None and got.per_class_map["ant"] is not None


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_iou_on_a_threshold_reaches_it(backend: Backend) -> None:
    """IoU 0.6 counts at 0.50, 0.55 and 0.60: three of ten."""
    result = evaluate_coco(*one_image([[0, 0, 10, 6]], [[0, 0, 10, 10]]), ["ant"], backend)
    assert (result.map50, result.map75) == (1.0, 0.0)
    assert result.map == pytest.approx(0.3)
    assert result.per_class_map["ant"] == pytest.approx(0.3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_detections_of_an_ignored_object_do_not_count(backend: Backend) -> None:
    ignored, object_ = [50.0, 50, 90, 90], [0.0, 0, 10, 10]
    found, truth = one_image([ignored, ignored, object_], [ignored, object_], [True, False])
    assert evaluate_coco(found, truth, ["ant"], backend).map == pytest.approx(1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_best_hundred_of_a_class_count_and_no_warning_is_given(backend: Backend) -> None:
    misses = [[100.0, 100, 110, 110]] * 120
    found, truth = one_image([*misses, [0, 0, 10, 10]], [[0, 0, 10, 10]])
    # The hit comes 121st of its class; then 121st over all classes, but first of its own.
    others = [Detections(found[0].boxes, found[0].scores, torch.tensor([2] * 120 + [1]))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert evaluate_coco(found, truth, NAMES, backend).map == 0.0
        assert evaluate_coco(others, truth, NAMES, backend).map == pytest.approx(1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_detections_the_score_is_zero(backend: Backend) -> None:
    result = evaluate_coco(*one_image([], [[0, 0, 10, 10]]), ["ant", "bee"], backend)
    assert (result.map, result.map50, result.map75) == (0.0, 0.0, 0.0)
    assert result.per_class_map == result.per_class_map50 == {"ant": 0.0, "bee": None}


@pytest.mark.parametrize("truth", [[], [[0.0, 0, 10, 10]]])
def test_without_counted_objects_there_is_no_score(truth: list[list[float]]) -> None:
    found, ignored = one_image([[0, 0, 10, 10]], truth, [True] * len(truth))
    nothing = CocoResult(None, None, None, {"ant": None}, {"ant": None})
    assert evaluate_coco(found, ignored, ["ant"]) == nothing
    assert evaluate_coco([], [], ["ant"]) == nothing


def test_wrong_input_is_refused() -> None:
    found, truth = one_image([[0, 0, 10, 10]], [[0, 0, 10, 10]])
    with pytest.raises(ValueError, match="1 images with detections, but 0 with objects"):
        evaluate_coco(found, [], ["ant"])
    with pytest.raises(ValueError, match=r"label 1 is outside 1\.\.0"):
        evaluate_coco(found, truth, [])
